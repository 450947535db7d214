/**
 * Runs ava; the last line is always `N passed, N failed, N skipped`, and the exit status says whether anything failed.
 *
 *     node scripts/test.js [compiled test files or globs, other ava arguments]
 *
 * The numbers come from ava itself (ava.config.js sends them). Skipped tests are listed above the last line; the reason
 * is part of the title, see test/fixtures/external-tools.ts.
 */
import { spawn } from 'node:child_process';
import console from 'node:console';
import { once } from 'node:events';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const AVA_CLI = path.join(fileURLToPath(import.meta.resolve('ava')), '..', 'cli.mjs');

const started = performance.now();
const skipped = [];
let stats = {};

const ava = spawn(process.execPath, [AVA_CLI, ...process.argv.slice(2)], {
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
});
ava.on('message', (message) => {
  if (message.stats) stats = message.stats;
  if (message.skipped) skipped.push(message.skipped);
});
// An interrupt ends ava, not this program: what was counted so far is still reported.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => ava.kill(signal));
// 'disconnect' too: the last numbers may still be under way when the process is gone
const [[code, signal]] = await Promise.all([once(ava, 'close'), once(ava, 'disconnect')]);

const sum = (...names) => names.reduce((total, name) => total + (stats[name] ?? 0), 0);
const passed = sum('passedTests', 'passedKnownFailingTests');
// Remaining tests were chosen but never ended: a time-out, or a process that died under them.
const failed = sum(
  'failedTests',
  'failedHooks',
  'remainingTests',
  'uncaughtExceptions',
  'unhandledRejections',
  'internalErrors',
);

if (skipped.length > 0) console.log(`Skipped:\n${skipped.map((title) => `  ${title}`).join('\n')}\n`);
if (code !== 0) console.log(`ava exited with ${code ?? signal}`);
console.log(`${((performance.now() - started) / 1000).toFixed(1)} s`);
// ava can fail without naming any test, as when it finds no file
console.log(`${passed} passed, ${failed === 0 && code !== 0 ? 1 : failed} failed, ${skipped.length} skipped`);
process.exitCode = failed === 0 && code === 0 ? 0 : 1;
