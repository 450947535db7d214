import { parsePlatform, type Platform } from '../store/platform.ts';
import type { OptionSpec } from './command.ts';

export const PLATFORM_OPTION = {
  type: 'string',
  value: 'os/arch',
  help: 'which image of a list of them, as linux/arm64; default: the one for this machine',
} as const satisfies OptionSpec;

/** @throws BentoError USAGE */
export function platformOf(written: string | undefined): Platform | undefined {
  return written === undefined ? undefined : parsePlatform(written);
}
