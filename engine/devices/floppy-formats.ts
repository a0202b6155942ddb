/** The formats of floppy disks, told by the size of their image. ECMA-99, ECMA-100, ECMA-125 and what PCs made of them. */
export interface FloppyGeometry {
  readonly cylinders: number;
  readonly heads: number;
  /** Of 512 bytes, on a track. */
  readonly sectors: number;
  /** As the controller's DSR and CCR select it: 0 for 500 kbit/s, 1 for 300, 2 for 250, 3 for 1000. */
  readonly rate: number;
  /** The drive that takes it, as the CMOS has it: 2 for 1.2 MB, 4 for 1.44 MB, 5 for 2.88 MB. */
  readonly drive: number;
}

const geometry = (cylinders: number, heads: number, sectors: number, rate: number, drive: number): FloppyGeometry => ({
  ...{ cylinders, heads, sectors, rate, drive },
});

/** The most common of each size first. */
const FORMATS: readonly FloppyGeometry[] = [
  geometry(80, 2, 18, 0, 4),
  geometry(80, 2, 36, 3, 5),
  geometry(80, 2, 20, 0, 4),
  geometry(80, 2, 21, 0, 4),
  geometry(82, 2, 21, 0, 4),
  geometry(83, 2, 21, 0, 4),
  geometry(80, 2, 15, 0, 2),
  geometry(80, 2, 9, 2, 4),
  geometry(40, 2, 9, 1, 2),
  geometry(40, 2, 8, 1, 2),
  geometry(40, 1, 9, 1, 2),
  geometry(40, 1, 8, 1, 2),
];

export const floppyBytes = ({ cylinders, heads, sectors }: FloppyGeometry): number => cylinders * heads * sectors * 512;

/** The drive of a place that had no medium when the machine was started: one that takes all of 3.5 inches. */
export const EMPTY_DRIVE = 5;

/** What an image of so many bytes is; one of an odd size is the smallest of 3.5 inches that it fits on. */
export function floppyGeometry(size: number): FloppyGeometry {
  return FORMATS.find((each) => floppyBytes(each) === size) ?? FORMATS[size <= floppyBytes(FORMATS[0]) ? 0 : 1];
}
