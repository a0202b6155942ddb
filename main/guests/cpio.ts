/** Writes archives in the "newc" form of cpio (cpio(5), Linux Documentation/driver-api/early-userspace/buffer-format). */

export interface CpioMember {
  /** Path from the root, without a leading slash. */
  readonly path: string;
  readonly kind: 'file' | 'folder' | 'link' | 'character-device';
  /** Permission bits. */
  readonly mode: number;
  /** A file's bytes, or a symbolic link's target. */
  readonly content?: Uint8Array | string;
  /** Major and minor number of a device. */
  readonly device?: readonly [number, number];
}

/** File type bits of st_mode. */
const types = { file: 0o100000, folder: 0o040000, link: 0o120000, 'character-device': 0o020000 } as const;

/** The archive; members are owned by root and dated `time` (seconds since the epoch), so that the same members make the same bytes. */
export function cpioArchive(members: readonly CpioMember[], time = 0): Buffer {
  const parts: Buffer[] = [];
  let size = 0;
  const push = (data: Buffer): void => {
    const padding = -(size + data.length) & 3;
    parts.push(data, Buffer.alloc(padding));
    size += data.length + padding;
  };
  const member = (
    inode: number,
    path: string,
    mode: number,
    links: number,
    content: Buffer,
    [major, minor]: readonly [number, number],
  ): void => {
    const name = Buffer.from(`${path}\0`);
    const fields = [inode, mode, 0, 0, links, time, content.length, 0, 0, major, minor, name.length, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
    push(Buffer.concat([Buffer.from(header), name]));
    push(content);
  };
  for (const [index, { path, kind, mode, content = '', device = [0, 0] as const }] of members.entries())
    member(index + 1, path, types[kind] | mode, kind === 'folder' ? 2 : 1, Buffer.from(content as string), device);
  member(0, 'TRAILER!!!', 0, 1, Buffer.alloc(0), [0, 0]);
  // Boot loaders and kernels expect whole blocks of 512 bytes.
  parts.push(Buffer.alloc(-size & 511));
  return Buffer.concat(parts);
}
