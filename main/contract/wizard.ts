/** What the creation wizard fills in: the plan of a VM, checked by the same schema in the page and in the services. */
import { z } from 'zod';
import { cpusSchema, memorySchema, vmNameSchema } from './definition.ts';

const path = (what: string) => z.string().trim().min(1, `Choose ${what}`).max(4096, 'The path is too long');

export const sourceSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('kernel'),
    kernel: path('a kernel'),
    initrd: z.string().trim().max(4096).optional(),
    append: z.string().max(2047, 'A kernel command line has at most 2047 characters'),
  }),
  z.strictObject({ kind: z.literal('iso'), path: path('an ISO image') }),
  z.strictObject({ kind: z.literal('import'), path: path('a disk image') }),
  z.strictObject({ kind: z.literal('network'), url: z.url('Not an address').optional() }),
  z.strictObject({ kind: z.literal('manual') }),
]);

export const storageSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('none') }),
  z.strictObject({
    kind: z.literal('create'),
    sizeGiB: z.number().min(0.01, 'The disk is too small').max(65536, 'The disk is too large'),
  }),
  z.strictObject({ kind: z.literal('existing'), path: path('a disk image') }),
]);

export const planSchema = z.strictObject({
  source: sourceSchema,
  /** An id of the OS catalogue; null for a system that is not in it. */
  os: z.string().max(64).nullable(),
  memoryMiB: memorySchema,
  cpus: cpusSchema.shape.count,
  storage: storageSchema,
  name: vmNameSchema,
  description: z.string().max(4000).optional(),
  network: z.enum(['none', 'user']),
});

export type WizardPlan = z.output<typeof planSchema>;
export type WizardSource = z.output<typeof sourceSchema>;
export type WizardStorage = z.output<typeof storageSchema>;

/** A plan under way: any member may be missing or not valid yet; `wizard.check` says what is wrong. */
export const planDraftSchema = z.partialRecord(
  z.enum(Object.keys(planSchema.shape) as [keyof WizardPlan, ...(keyof WizardPlan)[]]),
  z.unknown(),
);
export type WizardDraft = Partial<Record<keyof WizardPlan, unknown>>;
