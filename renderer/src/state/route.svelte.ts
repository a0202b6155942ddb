/** Which screen this page shows, kept in the address so that a window, a tab and the back button agree. */
export const vmViews = ['console', 'serial', 'details', 'graphs', 'translator', 'snapshots'] as const;
export type VmView = (typeof vmViews)[number];

export type Route = { readonly screen: 'list' } | { readonly screen: 'vm'; readonly id: string; readonly view: VmView };

/** `#/vm/ID/VIEW`, or `#/vm/ID?view=VIEW`; anything else is the list. */
export function parseRoute(hash: string): Route {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
  const [screen, id, view] = path.split('/');
  if (screen !== 'vm' || id === undefined || !/^[0-9a-f-]{36}$/i.test(id)) return { screen: 'list' };
  const wanted = view ?? new URLSearchParams(query).get('view') ?? 'console';
  return { screen: 'vm', id, view: vmViews.find((name) => name === wanted) ?? 'console' };
}

export const vmAddress = (id: string, view?: VmView): string => `#/vm/${id}${view === undefined ? '' : `/${view}`}`;

class Router {
  route = $state.raw<Route>(parseRoute(location.hash));

  constructor() {
    addEventListener('hashchange', () => {
      this.route = parseRoute(location.hash);
    });
  }

  go(address: string): void {
    location.hash = address;
  }

  /** Another view of the same VM takes the place of the one before, so that "back" leads to the list. */
  replace(address: string): void {
    history.replaceState(null, '', address);
    this.route = parseRoute(address);
  }
}

export const router = new Router();
