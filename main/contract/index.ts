/** All of the services that the renderer may see. */
export * from './channels.ts';
export * from './client.ts';
export * from './definition.ts';
export * from './errors.ts';
export * from './settings.ts';
export * from './storage.ts';
export * from './stream.ts';
export * from './types.ts';
export * from './wizard.ts';
