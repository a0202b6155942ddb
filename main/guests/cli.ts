/**
 * Fetches the sample guest into a cache folder: `node main/guests/cli.ts CACHE [amd64|i386]`. Quick when it is there.
 * Exit status 0: it is there; 1: it is not, with one line that says why and what to do.
 */
import { fetchGuest, findGuest, type GuestArchitecture } from './debian.ts';

const [cache, architecture = 'amd64'] = process.argv.slice(2) as [string, GuestArchitecture?];
try {
  const found = await findGuest(cache, architecture, true);
  if (found === undefined) await fetchGuest(cache, (_, what) => console.log(`  ${what}`), { architecture });
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
