/**
 * Runs benchmarks and prints their reports: `node dist/bench/run.js [name ...]`, all of them without a name.
 *
 *     --files 1000,30000   sizes of the two trees       --rounds 5   samples of each measurement
 *     --out dist/bench-results                          where the reports go as Markdown and JSON
 */
import { parseArgs } from 'node:util';
import { formatReport, writeReport, type Report } from './measure.ts';

export interface BenchOptions {
  /** Sizes of the small and the large tree. */
  fileCounts: readonly [number, number];
  rounds: number;
}

type Bench = (options: BenchOptions) => Promise<Report>;

const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  reading: async () => (await import('./reading.ts')).reading,
  'save-engine': async () => (await import('./save-engine.ts')).saveEngine,
  writing: async () => (await import('./writing.ts')).writing,
  'large-change': async () => (await import('./large-change.ts')).largeChange,
  registry: async () => (await import('./registry.ts')).registry,
  'mount-and-fork': async () => (await import('./mount-and-fork.ts')).mountAndFork,
};

function parse(): { names: string[]; options: BenchOptions; out: string } {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      files: { type: 'string', default: '1000,30000' },
      rounds: { type: 'string', default: '5' },
      out: { type: 'string', default: 'dist/bench-results' },
    },
  });
  const [small = NaN, large = NaN] = values.files.split(',').map(Number);
  const rounds = Number(values.rounds);
  if (!(small > 0 && large > 0 && rounds > 0)) throw new RangeError('--files wants two numbers, --rounds one');
  const names = positionals.length > 0 ? positionals : Object.keys(BENCHES);
  return { names, options: { fileCounts: [small, large], rounds }, out: values.out };
}

// A signal ends a process without 'exit', and it is on 'exit' that open sandboxes unmount and remove themselves.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(130));

const { names, options, out } = parse();
for (const name of names) {
  const load = BENCHES[name];
  if (!load) throw new RangeError(`no benchmark is called ${name}; there are: ${Object.keys(BENCHES).join(', ')}`);
  const bench = await load();
  const report = await bench(options);
  console.log(`${formatReport(report)}\n`);
  console.log(`written to ${writeReport(out, report).join(' and ')}`);
  if (report.goals.some((goal) => !goal.met)) process.exitCode = 1;
}
