import { readdirSync } from 'node:fs';

import { toFsPath, type ByteString } from '../../store/byte-string.ts';
import { errnoOf } from '../../store/errors.ts';
import { withinReach } from '../../store/file-calls.ts';
import { ERRNO } from '../protocol/constants.ts';
import { ErrnoError } from './errno-error.ts';
import { isWhiteoutAt } from './marks.ts';

/** An entry of a directory in the upper one. */
export interface UpperName {
  name: ByteString;
  isDir: boolean;
  isWhiteout: boolean;
}

/** What a directory in the upper one has, whiteouts among it. @throws ErrnoError ESTALE when it is gone, else EIO */
export function readUpperNames(dir: ByteString): UpperName[] {
  try {
    const entries = readdirSync(toFsPath(withinReach(dir)), { encoding: 'latin1', withFileTypes: true });
    return entries.map((entry) => ({
      name: entry.name,
      isDir: entry.isDirectory(),
      isWhiteout: entry.isCharacterDevice() && isWhiteoutAt(`${dir}/${entry.name}`),
    }));
  } catch (error) {
    throw new ErrnoError(ERRNO[errnoOf(error) === 'ENOENT' ? 'ESTALE' : 'EIO']);
  }
}
