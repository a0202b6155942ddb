/** Builds the page that both shells show: `vite build --config renderer/vite.config.ts`, into dist/renderer. */
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

const here = import.meta.dirname;

export default defineConfig({
  root: here,
  // Relative addresses: the page is served from a host's root, from a file, or from a scheme of the app's own.
  base: './',
  plugins: [svelte({ configFile: false })],
  build: {
    outDir: `${here}/../dist/renderer`,
    emptyOutDir: true,
    // Electron 45 and the Chromium of the same year; noVNC awaits at its top level.
    target: 'chrome150',
    cssTarget: 'chrome150',
    assetsInlineLimit: 0,
    sourcemap: true,
    chunkSizeWarningLimit: 1500,
  },
});
