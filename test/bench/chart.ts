/** A chart as SVG, of one file without anything else: bars of speed with a line at 1. It follows the reader's light or dark, on paper of its own. */

export interface Bar {
  readonly name: string;
  /** Bars of a group stand together. */
  readonly group: string;
  /** Above 1: faster. */
  readonly value: number;
}

const WIDTH = 720;
const LABELS = 120;
const RIGHT = 60;
const BAR = 18;
const STEP = 24;
const HEAD = 28;

const style = `.paper { fill: #ffffff } text { font: 13px sans-serif; fill: #24292f } .title { font-weight: bold; font-size: 15px } .group { fill: #57606a }
.grid { stroke: #d0d7de } .one { stroke: #24292f; stroke-width: 2 } .faster { fill: #2da44e } .slower { fill: #d4762c }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .paper { fill: #0d1117 } .group { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #e6edf3 } .faster { fill: #3fb950 } .slower { fill: #e8853a }
}`;

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Lines of the grid: some five round steps up to `most`. */
function gridStep(most: number): number {
  for (const step of [0.25, 0.5, 1, 2, 5, 10, 20]) if (most / step <= 6) return step;
  return 50;
}

/** The chart's text; groups in the order in which they come. */
export function speedChart(title: string, bars: readonly Bar[]): string {
  const step = gridStep(Math.max(1, ...bars.map(({ value }) => value)));
  const most = Math.ceil(Math.max(1, ...bars.map(({ value }) => value)) / step) * step;
  const x = (value: number): number => Math.round(LABELS + (value / most) * (WIDTH - LABELS - RIGHT));
  const parts: string[] = [];
  const text = (at: number, y: number, words: string, more = ''): void => {
    parts.push(`<text x="${at}" y="${y}"${more}>${escaped(words)}</text>`);
  };
  let y = 36;
  const top = y;
  let group: string | undefined;
  for (const bar of bars) {
    if (bar.group !== group) {
      group = bar.group;
      y += HEAD;
      text(8, y - 8, group, ' class="group"');
    }
    const width = Math.max(1, x(bar.value) - x(0));
    parts.push(`<rect class="${bar.value >= 1 ? 'faster' : 'slower'}" x="${x(0)}" y="${y}" width="${width}" height="${BAR}"/>`);
    text(LABELS - 8, y + 14, bar.name, ' text-anchor="end"');
    text(x(bar.value) + 6, y + 14, bar.value.toFixed(2));
    y += STEP;
  }
  const grid: string[] = [];
  for (let value = 0; value <= most + step / 2; value += step) {
    grid.push(`<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="${top}" y2="${y}"/>`);
    text(x(value), y + 18, String(value), ' text-anchor="middle" class="group"');
  }
  parts.push(`<line class="one" x1="${x(1)}" x2="${x(1)}" y1="${top}" y2="${y}"/>`);
  const height = y + 30;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>${escaped(title)}</title>
<style>${style}</style>
<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>
<text class="title" x="8" y="22">${escaped(title)}</text>
${[...grid, ...parts].join('\n')}
</svg>
`;
}
