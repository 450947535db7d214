import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Extension, isDirectory, isFile } from './extension.ts';

const AGENT_PATTERNS = ['CLAUDE.md', 'CLAUDE.local.md', '**/.claude/**', '.mcp.json', '.worktreeinclude'];
const SLUG_LENGTH_MAX = 200;

/** Claude Code: instructions, settings, commands and skills; nested `.claude/` folders are honoured by the agent. */
export const claudeCode: Extension = {
  name: 'claude-code',
  detect: (workspace, home) =>
    isDirectory(workspace, '.claude') || isFile(workspace, 'CLAUDE.md') || hasSessions(workspace, home),
  contribute: () => ({ layers: { agent: [...AGENT_PATTERNS] }, ignore: [] }),
};

function hasSessions(workspace: string, home: string): boolean {
  const slug = projectSlug(workspace);
  return slug !== undefined && isDirectory(home, '.claude', 'projects', slug);
}

/**
 * The folder name under `~/.claude/projects`: the real path with every character but ASCII letters and digits as `-`.
 * Longer than 200 characters the agent appends a hash of its own, which we do not guess: undefined.
 */
function projectSlug(workspace: string): string | undefined {
  const slug = realPath(workspace).replace(/[^A-Za-z0-9]/g, '-');
  return slug.length > SLUG_LENGTH_MAX ? undefined : slug;
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}
