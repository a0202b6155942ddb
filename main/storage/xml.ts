/**
 * As much of XML 1.0 as OVF descriptors use: elements, attributes, text, CDATA, comments, the five named entities and
 * character references. A document type is refused, so there are no entities to expand. Names lose their prefixes.
 */
export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlElement[];
  /** The text directly in it. */
  readonly text: string;
}

export class XmlError extends Error {
  override readonly name = 'XmlError';
}

const maxDepth = 100;
const maxElements = 100_000;
const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };

const decode = (text: string): string =>
  text.replace(/&(#x?[0-9a-fA-F]+|\w+);/g, (whole, name: string) => {
    if (name[0] !== '#') return entities[name] ?? whole;
    const code = name[1] === 'x' ? Number.parseInt(name.slice(2), 16) : Number.parseInt(name.slice(1), 10);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : '';
  });

const local = (name: string): string => name.slice(name.indexOf(':') + 1);

interface Open {
  readonly name: string;
  readonly attributes: Record<string, string>;
  readonly children: XmlElement[];
  text: string;
}

/** The root element; throws an `XmlError`. */
export function parseXml(source: string): XmlElement {
  const stack: Open[] = [];
  let root: XmlElement | undefined;
  let count = 0;
  let at = source.charCodeAt(0) === 0xfeff ? 1 : 0;
  const fail = (why: string): never => {
    throw new XmlError(`${why} (at character ${at})`);
  };
  const skipTo = (end: string): string => {
    const found = source.indexOf(end, at);
    if (found < 0) fail(`'${end}' is missing`);
    const text = source.slice(at, found);
    at = found + end.length;
    return text;
  };
  const close = (open: Open): void => {
    const parent = stack.at(-1);
    if (parent === undefined) root = open;
    else parent.children.push(open);
  };
  while (at < source.length) {
    const tag = source.indexOf('<', at);
    const text = source.slice(at, tag < 0 ? source.length : tag);
    const inside = stack.at(-1);
    if (inside !== undefined) inside.text += decode(text);
    else if (text.trim() !== '') fail('there is text outside the document');
    if (tag < 0) break;
    at = tag;
    if (source.startsWith('<!--', at)) {
      at += 4;
      skipTo('-->');
    } else if (source.startsWith('<![CDATA[', at)) {
      at += 9;
      const data = skipTo(']]>');
      if (inside === undefined) fail('there is text outside the document');
      else inside.text += data;
    } else if (source.startsWith('<?', at)) skipTo('?>');
    else if (source.startsWith('<!', at)) fail('a document type is not taken');
    else if (source.startsWith('</', at)) {
      at += 2;
      const name = local(skipTo('>').trim());
      const open = stack.pop();
      if (open === undefined || open.name !== name) return fail(`</${name.slice(0, 40)}> closes nothing`);
      close(open);
    } else {
      const match = /<([^\s/>=]+)((?:\s+[^\s/>=]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>/y;
      match.lastIndex = at;
      const found = match.exec(source);
      if (found === null) return fail('a tag is not well formed');
      if (root !== undefined && stack.length === 0) fail('there is more than one document');
      if (++count > maxElements || stack.length >= maxDepth) fail('the document is too large');
      at = match.lastIndex;
      const attributes: Record<string, string> = {};
      for (const [, name, quoted] of found[2].matchAll(/([^\s=]+)\s*=\s*("[^"]*"|'[^']*')/g))
        attributes[local(name)] = decode(quoted.slice(1, -1));
      const open: Open = { name: local(found[1]), attributes, children: [], text: '' };
      if (found[3] === '/') close(open);
      else stack.push(open);
    }
  }
  if (stack.length > 0 || root === undefined) return fail('the document is cut off');
  return root;
}

/** All elements of that name below, in order. */
export function findAll(element: XmlElement, name: string): XmlElement[] {
  const found: XmlElement[] = [];
  const walk = (at: XmlElement): void => {
    for (const child of at.children) {
      if (child.name === name) found.push(child);
      walk(child);
    }
  };
  walk(element);
  return found;
}

/** The text of the first child of that name; empty where there is none. */
export const childText = (element: XmlElement, name: string): string =>
  element.children.find((child) => child.name === name)?.text.trim() ?? '';
