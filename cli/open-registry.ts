import { BentoError } from '../store/errors.ts';
import type { Registries } from '../store/registry/repository.ts';
import type { Context } from './command.ts';
export async function openRegistries(_ctx: Context): Promise<Registries> {
  await Promise.resolve();
  throw new BentoError('REMOTE_UNREACHABLE', 'no registry client yet');
}
