/** Text in columns, as virsh prints it. */
export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = titles.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]): string =>
    ` ${cells.map((cell, column) => cell.padEnd(widths[column])).join('   ')}`.trimEnd();
  return [line(titles), '-'.repeat(widths.reduce((sum, width) => sum + width + 3, 1)), ...rows.map(line)].join('\n');
}

/** `name: value` lines with the values below each other. */
export function list(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length)) + 2;
  return pairs.map(([name, value]) => `${`${name}:`.padEnd(width + 1)}${value}`).join('\n');
}
