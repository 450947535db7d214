import { readdirSync } from 'node:fs';
import { type Extension, isDirectory, isFile } from './extension.ts';

const MARKERS = ['pyproject.toml', 'Pipfile', 'setup.py', 'uv.lock', '.python-version'];
const REQUIREMENTS = /^requirements.*\.txt$/;

/** Python: virtual environments are dependencies; bytecode is made again by the next import. */
export const python: Extension = {
  name: 'python',
  detect: (workspace) =>
    MARKERS.some((marker) => isFile(workspace, marker)) ||
    isDirectory(workspace, '.venv') ||
    hasRequirements(workspace),
  contribute: () => ({ layers: { deps: ['**/.venv/**'] }, ignore: ['**/__pycache__/**', '*.pyc'] }),
};

function hasRequirements(workspace: string): boolean {
  try {
    return readdirSync(workspace).some((name) => REQUIREMENTS.test(name));
  } catch {
    return false; // a workspace that cannot be listed fails in the scan, with a better message
  }
}
