import type { ComparedChange, Side } from '../../fs/workspace/compare.ts';
import type { ByteString } from '../../store/byte-string.ts';
import type { ByteOutput } from '../text-diff/byte-output.ts';
import { countChanges } from '../text-diff/line-diff.ts';
import { writeHunks } from '../text-diff/unified.ts';
import { compareContents, contentOf, gitMode, isInPatch, type Content } from './contents.ts';

/**
 * Writes one change as `git diff` does, so that `git apply` and `patch -p1` can make it: bytes of text files as they are,
 * binary files named. What such a patch cannot hold (times, owners, empty directories, devices) is left out.
 *
 * @see git-diff(1), "Generating patch text with -p"
 */
export function writeGitPatch(before: Side, after: Side, change: ComparedChange, out: ByteOutput): void {
  if (!isInPatch(change)) return;
  const old = contentOf(change, 'before');
  const fresh = contentOf(change, 'after');
  const isOther = old !== undefined && fresh !== undefined && old.node.type !== fresh.node.type;
  if (!isOther) {
    writeFile(before, after, { old, fresh, isRenamed: change.kind === 'renamed' }, out);
    return;
  }
  writeFile(before, after, { old, fresh: undefined, isRenamed: false }, out);
  writeFile(before, after, { old: undefined, fresh, isRenamed: false }, out);
}

interface FileChange {
  old: Content | undefined;
  fresh: Content | undefined;
  isRenamed: boolean;
}

function writeFile(before: Side, after: Side, { old, fresh, isRenamed }: FileChange, out: ByteOutput): void {
  const oldPath = old?.path ?? fresh?.path ?? '';
  const newPath = fresh?.path ?? oldPath;
  const header = `diff --git ${quoted(`a/${oldPath}`)} ${quoted(`b/${newPath}`)}\n${modeLines(old, fresh)}`;
  if (isRenamed) {
    out.text(`${header}similarity index 100%\nrename from ${quoted(oldPath)}\nrename to ${quoted(newPath)}\n`);
    return;
  }
  const compared = compareContents([before, old], [after, fresh]);
  const from = old === undefined ? '/dev/null' : quoted(`a/${oldPath}`);
  const to = fresh === undefined ? '/dev/null' : quoted(`b/${newPath}`);
  out.text(header);
  if (compared.kind !== 'text') {
    out.text(`Binary files ${from} and ${to} differ\n`);
    return;
  }
  const { insertions, deletions } = countChanges(compared.lines);
  if (insertions + deletions === 0) return; // an empty file, or only the mode
  out.text(`--- ${named(from)}\n+++ ${named(to)}\n`);
  writeHunks(compared.lines, out);
}

function modeLines(old: Content | undefined, fresh: Content | undefined): string {
  if (old === undefined) return fresh === undefined ? '' : `new file mode ${gitMode(fresh.node)}\n`;
  if (fresh === undefined) return `deleted file mode ${gitMode(old.node)}\n`;
  const [from, to] = [gitMode(old.node), gitMode(fresh.node)];
  return from === to ? '' : `old mode ${from}\nnew mode ${to}\n`;
}

/** A tab ends a name with a blank in it, which `patch` would otherwise take for the end. */
function named(name: ByteString): string {
  return name.includes(' ') ? `${name}\t` : name;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\t': '\\t',
  '\n': '\\n',
  '\v': '\\v',
  '\f': '\\f',
  '\r': '\\r',
  '"': '\\"',
  '\\': '\\\\',
};

/** A path as git writes it: in quotes and with C's escapes when it has bytes that are not plain ASCII. */
export function quoted(path: ByteString): string {
  if (/^[ !#-[\]-~]*$/.test(path)) return path;
  // eslint-disable-next-line no-control-regex -- those are what is escaped
  const escaped = path.replace(/[\x00-\x1f"\\\x7f-\xff]/g, (char) => ESCAPES[char] ?? octal(char));
  return `"${escaped}"`;
}

function octal(char: string): string {
  return `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`;
}
