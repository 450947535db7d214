import type { Check } from '../../fs/doctor/check.ts';
import type { EngineChoice } from '../../fs/doctor/mounting.ts';
import { loadConfig } from '../../fs/workspace/config.ts';
import type { Config } from '../../fs/workspace/config-types.ts';
import { BentoError, describeSystemError, ERRORS } from '../../store/errors.ts';
import { programVersion } from '../../store/version.ts';
import { defineCommand, type Context } from '../command.ts';
import { storeOf } from '../open-store.ts';
import { oneLine } from '../terminal.ts';

const GROUPS = ['machine', 'mounting', 'store'] as const;

interface Report {
  version: string;
  /** Nothing is broken; something may be limited or missing. */
  works: boolean;
  /** How `bento mount` and `bento fork` will do it here. */
  mount: EngineChoice;
  fork: EngineChoice;
  checks: ({ group: (typeof GROUPS)[number] } & Check)[];
}

export const doctor = defineCommand({
  name: 'doctor',
  summary: 'Say what this machine can do, and what to install',
  usage: 'bento doctor',
  details:
    'Looks at the machine, at what can be mounted (by mounting it for a moment), at the store, its daemon and its mounts.\n' +
    'Changes nothing. Exits with 0 when nothing is broken; limited and missing things have something to take their place.',
  args: { min: 0, max: 0 },

  async run({ dir }): Promise<Report> {
    const { examineMachine } = await import('../../fs/doctor/machine.ts');
    const { examineMounting } = await import('../../fs/doctor/mounting.ts');
    const { examineStore } = await import('../../fs/doctor/store-health.ts');
    const { config, check } = await examineConfig(dir);
    const store = await examineStore(storeOf(config));
    const { mount, fork, checks } = examineMounting(store.place);
    const groups = { machine: examineMachine(), mounting: checks, store: [check, ...store.checks] };
    const all = GROUPS.flatMap((group) => groups[group].map((one) => ({ group, ...one })));
    return { version: programVersion(), works: all.every(({ state }) => state !== 'broken'), mount, fork, checks: all };
  },

  render({ version, works, mount, fork, checks }, { colors }) {
    const width = Math.max(...checks.map(({ title }) => title.length));
    const broken = checks.filter(({ state }) => state === 'broken').map(({ title }) => title);
    return [
      `bento ${version}`,
      ...GROUPS.flatMap((group) => [
        '',
        `${HEADINGS[group]}:`,
        ...checks.filter((check) => check.group === group).flatMap((check) => renderCheck(check, width, colors)),
      ]),
      '',
      `bento mount: ${ENGINES[mount.engine]}, because ${oneLine(mount.why)}`,
      `bento fork:  ${ENGINES[fork.engine]}, because ${oneLine(fork.why)}`,
      works ? 'All that bento needs is here.' : `To be mended: ${broken.join(', ')}`,
    ].join('\n');
  },

  exitCode({ checks }) {
    const [first] = checks.flatMap(({ code }) => code ?? []);
    return first === undefined ? 0 : ERRORS[first].exitCode;
  },
});

/** The workspace's configuration, which tells the store; without one that can be read, it is the user's own store. */
async function examineConfig(dir: string): Promise<{ config: Config | undefined; check: Check }> {
  const { checkThat } = await import('../../fs/doctor/check.ts');
  let config: Config | undefined;
  let failure: BentoError | undefined;
  try {
    ({ config } = await loadConfig(dir));
  } catch (error) {
    const described = describeSystemError(error, `reading the configuration of ${dir}`);
    failure = described instanceof BentoError ? described : new BentoError('CONFIG_INVALID', String(error));
  }
  const check = checkThat('config', 'bento.yaml', (found) => {
    if (failure === undefined) return found.ok(`of ${dir}`, { facts: { dir } });
    if (failure.code === 'CONFIG_MISSING')
      return found.ok('none here; this is about your own store', { facts: { dir } });
    const { code, message, hint } = failure;
    return found.broken(code, message, { facts: { dir }, ...(hint !== undefined && { advice: hint }) });
  });
  return { config, check };
}

const HEADINGS: Record<(typeof GROUPS)[number], string> = { machine: 'Machine', mounting: 'Mounting', store: 'Store' };

const ENGINES: Record<EngineChoice['engine'], string> = {
  bind: 'bind mounts of one FUSE tree',
  fuse: 'a FUSE mount for each',
  overlay: 'kernel overlays over the FUSE tree',
  cow: 'copy-on-write in the mount daemon',
  copy: 'plain copies',
  none: 'will fail',
};

const STATE_WIDTH = 'limited'.length;

function renderCheck({ state, title, finding, advice }: Check, width: number, colors: Context['colors']): string[] {
  const colored = {
    ok: colors.green,
    limited: colors.yellow,
    missing: colors.yellow,
    broken: colors.red,
    unknown: colors.dim,
  };
  const head = `  ${colored[state](state.padEnd(STATE_WIDTH))}  ${title.padEnd(width)}  ${oneLine(finding)}`;
  const indent = ' '.repeat(2 + STATE_WIDTH + 2 + width + 2);
  return advice === null ? [head] : [head, `${indent}${colors.dim(oneLine(advice))}`];
}
