import { lstatSync } from 'node:fs';

import { loadConfig, type LoadedConfig } from '../fs/workspace/config.ts';
import { updateConfig } from '../fs/workspace/config-file.ts';
import { BentoError } from '../store/errors.ts';
import { pathOfName } from '../store/registry/local-ref.ts';
import { parseRemoteRef } from '../store/registry/remote-ref.ts';
import type { RepositoryName } from '../store/registry/repository.ts';
import type { Context } from './command.ts';

/** Which repository a command is about, and what in it. */
export interface ChosenRemote {
  loaded: LoadedConfig;
  name: RepositoryName;
  /** `registry/path`, as it is shown and remembered. */
  shown: string;
  /** Tag or digest; undefined when all is meant. */
  reference: string | undefined;
}

/**
 * The remote that was written, else the one in bento.yaml.
 *
 * @param tag - of the flag `--tag`; a tag or digest in the reference means the same
 * @throws BentoError CONFIG_INVALID when there is neither; REF_INVALID, USAGE
 */
export async function chooseRemote(
  { dir, args: [written] }: Pick<Context, 'dir' | 'args'>,
  tag: string | undefined,
): Promise<ChosenRemote> {
  const loaded = await loadConfig(dir);
  const from = written ?? loaded.config.remote;
  if (from === undefined || from === '') {
    const what = "no remote configured. Set 'remote' in bento.yaml or pass a registry URL";
    throw new BentoError('CONFIG_INVALID', what, {
      hint: 'as in `bento push ghcr.io/me/workspace`, or `bento push file:///folder`',
    });
  }
  const {
    registry,
    repository,
    tag: own,
    digest,
  } = parseRemoteRef(from, written === undefined ? loaded.dir : undefined);
  const named = written === undefined ? undefined : (digest ?? own);
  if (named !== undefined && tag !== undefined && named !== tag)
    throw new BentoError('USAGE', `"${from}" and --tag ${tag} name different checkpoints`);
  return {
    loaded,
    name: { registry, repository },
    shown: shownName({ registry, repository }),
    reference: tag ?? named,
  };
}

/** Writes the remote to bento.yaml where it has none; an archive takes no pushes. @returns whether it did */
export async function rememberRemote({ loaded, name }: ChosenRemote): Promise<boolean> {
  const remote = remoteFor(name);
  if (loaded.config.remote || remote === undefined) return false;
  await updateConfig(loaded.dir, { remote });
  return true;
}

/** `registry/path`, as bento.yaml has it; undefined for an archive, which takes no pushes. */
export function remoteFor(name: RepositoryName): string | undefined {
  const path = pathOfName(name);
  const isPushable = path === undefined || lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  return isPushable ? shownName(name) : undefined;
}

function shownName({ registry, repository }: RepositoryName): string {
  return `${registry}/${repository}`;
}

/** The same error, beginning with what was going on. */
export function during(what: string, error: unknown): unknown {
  if (!(error instanceof BentoError)) return error;
  const { code, hint, message } = error;
  return new BentoError(code, `${what}: ${message}`, { ...(hint !== undefined && { hint }), cause: error });
}
