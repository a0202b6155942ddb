/**
 * Settings in `settings.json`. A file that cannot be read is set aside with its reason and the defaults are used; a
 * member that is missing (the file is older than the app) takes its default.
 */
import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { AppError, defaultSettings, type Settings, type SettingsChanges, settingsSchema } from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';
import { errorCode, makeFolder, reasonOf, writeFileAtomic } from '../host/files.ts';

function merged(base: Settings, changes: SettingsChanges): Settings {
  return {
    ...base,
    ...changes,
    console: { ...base.console, ...changes.console },
    graphs: { ...base.graphs, ...changes.graphs },
    confirmations: { ...base.confirmations, ...changes.confirmations },
  };
}

export class SettingsService {
  readonly #path: string;
  readonly #bus: EventBus;
  #settings: Settings;

  private constructor(path: string, bus: EventBus, settings: Settings) {
    this.#path = path;
    this.#bus = bus;
    this.#settings = settings;
  }

  /** `warn` is told when a file had to be set aside. */
  static async open(folder: string, bus: EventBus, warn: (message: string) => void): Promise<SettingsService> {
    const path = join(await makeFolder(folder), 'settings.json');
    let settings = defaultSettings;
    try {
      const text = await readFile(path, 'utf8');
      const parsed = settingsSchema.safeParse(merged(defaultSettings, JSON.parse(text)));
      if (!parsed.success) throw new Error(z.prettifyError(parsed.error));
      settings = parsed.data;
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') {
        const aside = `${path}.corrupt-${Date.now()}`;
        await rename(path, aside).catch(() => {});
        warn(`The settings could not be read (${reasonOf(error)}); the defaults are used. The file is kept as ${aside}.`);
      }
    }
    return new SettingsService(path, bus, settings);
  }

  get(): Settings {
    return this.#settings;
  }

  async set(changes: SettingsChanges): Promise<Settings> {
    const next = merged(this.#settings, changes);
    try {
      await writeFileAtomic(this.#path, `${JSON.stringify(next, null, 2)}\n`);
    } catch (error) {
      throw new AppError('host', `The settings could not be saved: ${reasonOf(error)}`, { cause: error });
    }
    this.#settings = next;
    this.#bus.emit('settings.changed', next);
    return next;
  }
}
