import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BentoError, errnoOf } from '../../store/errors.ts';

const FILE_NAME = '.bentoignore';
const FILE_BYTES_MAX = 1024 * 1024;

const BODY = `# Bento ignore patterns
# Files matching these patterns are excluded from all layers.

bento.yaml
.bentoignore
bin/**
.DS_Store
Thumbs.db
*.swp
*.swo
*~
`;

/** Writes the starting `.bentoignore`. @returns false, and changes nothing, when there is one already */
export async function writeBentoignore(dir: string): Promise<boolean> {
  try {
    await using file = await open(join(dir, FILE_NAME), 'wx', 0o644);
    await file.writeFile(BODY);
    await file.sync();
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** The patterns of `.bentoignore`, gitignore dialect: trimmed, without blank lines and comments; none without a file. */
export async function readBentoignore(dir: string): Promise<string[]> {
  const lines = (await readText(join(dir, FILE_NAME))).replace(/^\uFEFF/, '').split('\n');
  return lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX) {
      throw new BentoError('CONFIG_INVALID', `${FILE_NAME} is larger than ${FILE_BYTES_MAX} bytes`);
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}
