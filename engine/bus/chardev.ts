/**
 * A character device back end as a front end (UART, virtio-console) sees it. Called with the machine lock held,
 * on any thread.
 */
export interface CharSink {
  /** Offers bytes to the outside; returns how many were taken. Fewer than offered: the back end is full, try again after `drained`. */
  write(data: Uint8Array): number;
}

/** What the outside calls on a front end, with the machine lock held. */
export interface CharFrontend {
  /** How many bytes of input the front end can take now. */
  room(): number;
  /** Delivers input; `data` is no longer than `room()`. */
  receive(data: Uint8Array): void;
  /** The back end has room again. */
  drained(): void;
  /** The back end was opened or closed by its user. */
  setOpen?(open: boolean): void;
}
