/** Messages for the person that no window was waiting for. */
import { randomUUID } from 'node:crypto';
import type { Notification } from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';

const keep = 100;

export class NotificationService {
  readonly #bus: EventBus;
  #list: Notification[] = [];

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  list(): Notification[] {
    return this.#list;
  }

  add(level: Notification['level'], title: string, detail = '', vm: string | null = null): void {
    const notification: Notification = { id: randomUUID(), time: Date.now(), level, title, detail, vm };
    this.#list = [...this.#list, notification].slice(-keep);
    this.#bus.emit('notification.added', notification);
  }

  dismiss(id: string): void {
    this.#list = this.#list.filter((notification) => notification.id !== id);
    this.#bus.emit('notification.removed', { id });
  }
}
