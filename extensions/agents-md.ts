import { type Extension, isFile } from './extension.ts';

/** AGENTS.md, the instructions file that many agents share; nested ones count too. */
export const agentsMd: Extension = {
  name: 'agents-md',
  detect: (workspace) => isFile(workspace, 'AGENTS.md'),
  contribute: () => ({ layers: { agent: ['AGENTS.md'] }, ignore: [] }),
};
