/** Character device back ends as they are configured: QEMU's `-chardev` back ends and their properties. */

export interface ChardevCommon {
  readonly id: string;
  /** Several front ends share the back end; Ctrl-A c goes from one to the next. */
  readonly mux?: boolean;
  /** A file that gets a copy of what the guest sends. */
  readonly logfile?: string;
  readonly logappend?: boolean;
}

export type ChardevOptions =
  | (ChardevCommon & { readonly backend: 'null' })
  /** `signal`: Ctrl-C and Ctrl-Z act on this process; off: the guest gets them. */
  | (ChardevCommon & { readonly backend: 'stdio'; readonly signal: boolean })
  | (ChardevCommon & { readonly backend: 'file'; readonly path: string; readonly append: boolean; readonly inputPath?: string })
  | (ChardevCommon & { readonly backend: 'pipe'; readonly path: string })
  | (ChardevCommon & { readonly backend: 'ringbuf'; readonly size: number })
  | (ChardevCommon & {
      readonly backend: 'socket';
      readonly address: SocketAddress;
      readonly server: boolean;
      /** A server waits for its first client before the machine starts. */
      readonly wait: boolean;
      /** Seconds after which a client tries again; 0: it does not. */
      readonly reconnect: number;
      readonly nodelay: boolean;
    });

export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'tcp'; readonly host: string; readonly port: number; readonly family?: 4 | 6 };

/** A back end that could not be opened: the message says which and why. */
export class ChardevError extends Error {
  override readonly name = 'ChardevError';
}
