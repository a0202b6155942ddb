/**
 * What the machine has devices for. The wizard offers what is here, and says of the rest why it cannot be had; a
 * definition that asks for more is refused at start, in the same words.
 */
export const support = {
  disk: true,
  cdrom: true,
  network: false,
  firmware: true,
} as const satisfies Record<string, boolean>;

export const missing = {
  disk: 'This version has no disk controllers yet',
  cdrom: 'This version has no CD drive and no firmware to start from one yet',
  network: 'This version has no network cards yet',
  firmware: 'This version runs no firmware yet: choose a kernel to start directly',
} as const satisfies Record<keyof typeof support, string>;
