import { type Extension, isDirectory, isFile } from './extension.ts';

const DENO_MARKERS = ['deno.json', 'deno.jsonc', 'deno.lock'];
const MARKERS = ['package.json', 'bun.lockb', 'bun.lock', 'bunfig.toml', ...DENO_MARKERS];

/** Node, Bun and Deno: installed packages are dependencies, also those of every package in a monorepo. */
export const node: Extension = {
  name: 'node',
  detect: (workspace) => MARKERS.some((marker) => isFile(workspace, marker)),
  contribute(workspace) {
    const deps = ['**/node_modules/**'];
    if (vendorsForDeno(workspace)) deps.push('vendor/**');
    return { layers: { deps }, ignore: [] };
  },
};

/** `vendor/` belongs to Go where there is a go.mod, and is source code where Deno is not in use. */
function vendorsForDeno(workspace: string): boolean {
  const usesDeno = DENO_MARKERS.some((marker) => isFile(workspace, marker));
  return usesDeno && isDirectory(workspace, 'vendor') && !isFile(workspace, 'go.mod');
}
