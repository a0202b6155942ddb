/** Settings of the app: kept in `settings.json` of the user's configuration folder; each member has a default. */
import { z } from 'zod';

export const settingsSchema = z.strictObject({
  theme: z.enum(['system', 'light', 'dark']),
  /** BCP 47, or `system`. */
  language: z.string().max(35),
  console: z.strictObject({
    scaling: z.enum(['always', 'fullscreen', 'never']),
    /** Keys that release the grabbed keyboard, by KeyboardEvent.code. */
    releaseKeys: z.array(z.string().max(32)).min(1).max(4),
    grabOnFocus: z.boolean(),
    /** Ask the guest to take the window's size. */
    resizeGuest: z.boolean(),
    shareClipboard: z.boolean(),
  }),
  graphs: z.strictObject({
    /** Seconds between two drawings; samples are taken every second whatever it says. */
    intervalSeconds: z.int().min(1).max(60),
    /** Days that history is kept. */
    keepDays: z.int().min(1).max(365),
  }),
  confirmations: z.strictObject({ forceOff: z.boolean(), reset: z.boolean(), deleteVm: z.boolean() }),
  /** Minutes for which a deleted VM can be brought back. */
  undoMinutes: z.int().min(1).max(10080),
  thumbnails: z.boolean(),
  showEndOfLife: z.boolean(),
});

export type Settings = z.output<typeof settingsSchema>;

export const defaultSettings: Settings = {
  theme: 'system',
  language: 'system',
  console: {
    scaling: 'always',
    releaseKeys: ['ControlLeft', 'AltLeft'],
    grabOnFocus: true,
    resizeGuest: false,
    shareClipboard: true,
  },
  graphs: { intervalSeconds: 1, keepDays: 30 },
  confirmations: { forceOff: true, reset: true, deleteVm: false },
  undoMinutes: 1440,
  thumbnails: true,
  showEndOfLife: false,
};

/** Members to change; of the groups too, each member by itself. */
export const settingsChangesSchema = settingsSchema
  .extend({
    console: settingsSchema.shape.console.partial(),
    graphs: settingsSchema.shape.graphs.partial(),
    confirmations: settingsSchema.shape.confirmations.partial(),
  })
  .partial();
export type SettingsChanges = z.output<typeof settingsChangesSchema>;
