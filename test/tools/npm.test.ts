import { testIf } from '../fixtures/external-tools.ts';
import { missingNpmPackages, makeNpmProject, NPM_CI, npmCache } from '../fixtures/npm-project.ts';
import { whatIsMissing } from '../fixtures/machine.ts';
import { runTool, shell, testInForks } from './tool-runs.ts';

const TOOLS = ['npm', 'cc'];
const TITLE = 'npm ci installs packages with machine code, and again over what is there; they run';
const missing = whatIsMissing({ root: true, fuse: true, tools: TOOLS }) ?? missingNpmPackages();

if (missing !== undefined) testIf(false, missing)(TITLE, (t) => t.fail());
else {
  testInForks(TITLE, TOOLS, {
    prepare: ({ dir }) => makeNpmProject(dir),
    work: async (place) => {
      const ci = async (): Promise<string> => await runTool(place, 'npm', [...NPM_CI, '--cache', npmCache()]);
      const runs = async (): Promise<string> =>
        await shell(place, `node main.js\n${COUNT}`, { npm_config_update_notifier: 'false' });
      await ci();
      const first = await runs();
      await ci(); // takes away all of the first
      return first + (await runs());
    },
  });
}

const COUNT = `
find node_modules -type f | wc -l
npm ls --all --offline
node_modules/.bin/tsc --version
node_modules/.bin/prettier --check main.ts
`;
