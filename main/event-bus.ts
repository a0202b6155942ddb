/** Carries the services' events to whoever listens: shells, and services among themselves. */
import type { EventName, Events } from './contract/index.ts';

export class EventBus {
  readonly #all = new Set<(name: EventName, payload: unknown) => void>();

  emit<N extends EventName>(name: N, payload: Events[N]): void {
    for (const listener of [...this.#all]) listener(name, payload);
  }

  /** Calls the listener for every event until the returned function is called. */
  listen(listener: (name: EventName, payload: unknown) => void): () => void {
    this.#all.add(listener);
    return () => this.#all.delete(listener);
  }

  on<N extends EventName>(name: N, listener: (payload: Events[N]) => void): () => void {
    return this.listen((event, payload) => {
      if (event === name) listener(payload as Events[N]);
    });
  }
}
