import { spawnSync } from 'node:child_process';

import test from 'ava';

import { bootId, mayBeInUse, mountNamespace } from '../../../fs/mounts/namespaces.ts';
import { testSerialIf } from '../../fixtures/external-tools.ts';
import { whatIsMissing } from '../../fixtures/machine.ts';
import { Namespaces } from '../../fixtures/other-machine.ts';
import { newSandbox } from '../../fixtures/sandbox.ts';

const MODULE = new URL('../../../fs/mounts/namespaces.js', import.meta.url).href;
const missing =
  whatIsMissing({ root: true, tools: ['unshare', 'nsenter'] }) ??
  (spawnSync('unshare', ['-Urm', 'true']).status === 0 ? undefined : 'user namespaces are not allowed');

test('this process has a mount namespace that is in use, and a boot', (t) => {
  t.regex(mountNamespace() ?? '', /^\d+$/);
  t.true(mayBeInUse(mountNamespace() ?? ''));
  t.false(mayBeInUse('1'));
  t.regex(bootId() ?? '', /^[0-9a-f-]{36}$/);
});

testSerialIf(missing === undefined, missing ?? '')(
  'inside a user namespace of one user: who we are, and whether anybody else is there',
  async (t) => {
    const inside = await Namespaces.ofUser(t, newSandbox(t));
    const script = `
      import * as namespaces from ${JSON.stringify(MODULE)};
      const { inInitialUserNamespace, hasAllUsers, outerUid, separateMountNamespace, isAloneInNamespace } = namespaces;
      const others = process.argv.slice(1).map(Number);
      console.log(JSON.stringify({
        isInitial: inInitialUserNamespace(), hasAll: hasAllUsers(), outer: outerUid(),
        isSeparate: separateMountNamespace() === namespaces.mountNamespace(),
        isAlone: isAloneInNamespace([process.pid]), isAloneWith: isAloneInNamespace([process.pid, ...others]),
      }));`;
    const words = [process.execPath, '--input-type=module', '-e', script, String(inside.pid)];
    t.deepEqual((await inside.run(words)).ok().json(), {
      isInitial: false,
      hasAll: false,
      outer: 0,
      isSeparate: true,
      isAlone: false,
      isAloneWith: true,
    });
  },
);
