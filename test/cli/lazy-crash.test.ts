import { existsSync } from 'node:fs';

import { blobPath } from '../fixtures/command-checks.ts';
import { testSerialNeeding } from '../fixtures/external-tools.ts';
import { differences, lazyFiles, pushWorkspace } from '../fixtures/lazy-workspace.ts';
import { OddRegistry } from '../fixtures/registry/odd-registry.ts';
import { newSandbox } from '../fixtures/sandbox.ts';

const test = testSerialNeeding({ fuse: true });

/** Every step of making whole what was read in parts. */
for (const fault of ['lazy.whole', 'lazy.renamed']) {
  test(`a command that is killed at ${fault} leaves what the next one goes on with`, async (t) => {
    await using registry = await OddRegistry.start();
    const { remote, files, layer } = await pushWorkspace(t, registry.host);
    const there = newSandbox(t);
    (await there.bento(['mount', `${remote}:cp-1`, there.makeFolder('mnt'), '--lazy=only'])).ok();
    const copied = there.path('copied');
    const open = ['open', `${remote}:cp-1`, copied, '--copy'];
    await t.throwsAsync(there.bento(open, { env: { BENTO_FAULT: fault } }), { message: /SIGKILL/ });
    t.not(lazyFiles(there).length, 0);
    registry.log.clear();
    (await there.bento(open)).ok();
    t.true(registry.log.sentBytes({ path: new RegExp(layer.digest) }) < layer.size / 10, 'it is not fetched again');
    t.true(existsSync(blobPath(there, layer.digest)));
    t.deepEqual(await differences(copied, files), []);
    (await there.bento(['init'])).ok();
    (await there.bento(['gc'])).ok();
    t.deepEqual(lazyFiles(there), []);
    (await there.bento(['verify'])).ok();
  });
}
