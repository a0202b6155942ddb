/** All of the engine that the app may see: types, and a few constant tables. */
export * from './machine-config.ts';
export * from './process.ts';
export * from './qmp.ts';
export * from './stats.ts';
