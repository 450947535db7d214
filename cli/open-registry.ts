import { BentoError } from '../store/errors.ts';
import type { Registries } from '../store/registry/repository.ts';
import type { Context } from './command.ts';

/** Registries as the user has set them up. Close it. */
export function openRegistries(_ctx: Pick<Context, 'home' | 'note' | 'signal'>): Registries {
  throw new BentoError('REMOTE_UNREACHABLE', 'this build of bento has no client for registries');
}
