import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

interface Comparison {
  layers: { title: string; changes: { path: string; kind: string; from?: string }[] }[];
}

function changesIn({ layers }: Comparison): string[] {
  return layers.flatMap(({ title, changes }) =>
    changes.map(({ kind, path: name, from }) => `${title}: ${kind} ${from === undefined ? '' : `${from} -> `}${name}`),
  );
}

testSerialNeeding({ root: true, fuse: true })(
  'diff of mounts, forks and directories in them is answered from the index, under the titles of their layers',
  async (t) => {
    const sandbox = newSandbox(t);
    const { workspace } = sandbox;
    const write = (dir: string, name: string, text: string) => {
      mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
      writeFileSync(path.join(dir, name), text);
    };
    const bento = async (...args: string[]) => (await sandbox.bento(args)).ok();
    const changes = async (...args: string[]) => changesIn((await bento('diff', ...args, '--json')).json<Comparison>());
    write(workspace, 'package.json', '{}\n');
    await bento('init');
    write(workspace, 'src/main.js', 'main\n');
    write(workspace, 'src/lib/util.js', 'util\n');
    write(workspace, 'docs/guide', 'guide\n');
    write(workspace, 'node_modules/pkg/index.js', 'pkg\n');
    await bento('save');
    write(workspace, 'src/main.js', 'main, changed\n');
    write(workspace, 'docs/guide', 'guide, changed\n');
    write(workspace, 'node_modules/pkg/index.js', 'pkg, changed\n');
    await bento('save');
    const [one, two] = [sandbox.makeFolder('one'), sandbox.makeFolder('two')];
    const [a, b] = [sandbox.path('a'), sandbox.path('b')];
    await bento('mount', 'cp-1', one);
    await bento('mount', 'cp-2', two);
    await bento('fork', 'cp-1', a);
    await bento('fork', 'cp-1', b);

    t.deepEqual(await changes(one, two), await changes('cp-1', 'cp-2'));
    t.deepEqual(await changes(`${one}/src`, `${two}/src`), ['project: modified main.js']);
    t.deepEqual(await changes(`${one}/node_modules`, `${two}/node_modules`), ['deps: modified pkg/index.js']);
    t.deepEqual(await changes(`${one}/docs`, `${one}/docs`), []);
    t.deepEqual(
      await changes(`${one}/src/lib`, `${two}/src`),
      ['project: added main.js', 'project: renamed util.js -> lib/util.js'],
      'directories at different places',
    );

    write(b, 'src/lib/util.js', 'util of b\n');
    renameSync(path.join(b, 'src/main.js'), path.join(b, 'src/start.js'));
    rmSync(path.join(b, 'docs/guide'));
    write(b, 'src/new.js', 'new\n');
    const inSrc = ['project: added new.js', 'project: modified lib/util.js', 'project: renamed main.js -> start.js'];
    t.deepEqual(await changes(`${a}/src`, `${b}/src`), inSrc);
    t.deepEqual(await changes(`${one}/src`, `${b}/src`), inSrc, 'a mount and a fork');
    t.deepEqual((await changes(a, b)).length, 4);
    t.deepEqual(await changes(`${workspace}/docs`, `${two}/docs`), [], 'a workspace and a mount');
    const patch = (await bento('diff', `${a}/src`, `${b}/src`, '--patch', '--file', 'lib')).stdout;
    t.regex(patch, /^diff --git a\/lib\/util\.js b\/lib\/util\.js\n[^]*\n-util\n\+util of b\n$/);
    const plain = sandbox.makeFolder('plain');
    write(plain, 'main.js', 'main\n');
    t.true((await changes(`${one}/src`, plain)).includes('project: removed lib/util.js'));

    await bento('unmount', one);
    await bento('close', '--discard', a);
    await bento('close', '--discard', b);
  },
);
