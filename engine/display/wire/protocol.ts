/**
 * Numbers of the remote framebuffer protocol: RFC 6143 (RFB 3.8) and, where it is silent, the community's
 * protocol description (rfbproto).
 */

/** RFC 6143 7.5: what a client sends. */
export const CLIENT_MESSAGE = {
  setPixelFormat: 0,
  setEncodings: 2,
  updateRequest: 3,
  key: 4,
  pointer: 5,
  cutText: 6,
  enableContinuousUpdates: 150,
  fence: 248,
  setDesktopSize: 251,
  qemu: 255,
} as const;

/** RFC 6143 7.6: what a server sends. */
export const SERVER_MESSAGE = {
  update: 0,
  setColourMapEntries: 1,
  bell: 2,
  cutText: 3,
  endOfContinuousUpdates: 150,
  fence: 248,
} as const;

/** RFC 6143 7.7 and 7.8, rfbproto "Encodings" and "Pseudo-encodings"; signed 32-bit. */
export const ENCODING = {
  raw: 0,
  copyRect: 1,
  zlib: 6,
  tight: 7,
  zrle: 16,
  desktopSize: -223,
  lastRect: -224,
  cursor: -239,
  compressLevel9: -247,
  compressLevel0: -256,
  qemuExtendedKey: -258,
  qemuLedState: -261,
  desktopName: -307,
  extendedDesktopSize: -308,
  fence: -312,
  continuousUpdates: -313,
  cursorWithAlpha: -314,
  vmwareCursor: 0x574d5664,
  extendedClipboard: 0xc0a1e5ce | 0,
} as const;

/** RFC 6143 7.2: security types. */
export const SECURITY = { invalid: 0, none: 1, vncAuthentication: 2 } as const;

/** rfbproto "Fence": flag bits. */
export const FENCE = { blockBefore: 1, blockAfter: 2, syncNext: 4, request: 0x80000000 } as const;

/** rfbproto "ExtendedDesktopSize": the x field says who asked, the y field what became of it. */
export const RESIZE_REASON = { server: 0, thisClient: 1, otherClient: 2 } as const;
export const RESIZE_STATUS = { done: 0, prohibited: 1, outOfResources: 2, invalidLayout: 3, forwarded: 4 } as const;

/** rfbproto "Extended Clipboard": format bits 0..15, action bits 24..31. */
export const CLIPBOARD = {
  text: 1 << 0,
  formats: 0xffff,
  caps: 1 << 24,
  request: 1 << 25,
  peek: 1 << 26,
  notify: 1 << 27,
  provide: 1 << 28,
  actions: 0xff000000 | 0,
} as const;

/** One rectangle in pixels. */
export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}
