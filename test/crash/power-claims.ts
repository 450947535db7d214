import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** What somebody was told is on the disk for good. */
export type Claim =
  /** Of a file that is only ever replaced: this version of it, or a later one. */
  | { kind: 'file'; path: string; version: number }
  /** So many lines, and perhaps more. */
  | { kind: 'lines'; path: string; lineCount: number }
  | { kind: 'gone'; path: string }
  /** All of an archive was unpacked there. */
  | { kind: 'tree'; path: string }
  /** So many rows of an SQLite database. */
  | { kind: 'rows'; path: string; rowCount: number }
  | { kind: 'commit'; path: string; hash: string };

const FILLER_BYTES_MAX = 20_000;

/** What version `version` of a file holds; says which it is, and nothing can be cut off or mixed without showing. */
export function contentOf(file: string, version: number): string {
  const filler = `${file} ${version};`.repeat(FILLER_BYTES_MAX / 20);
  return `${version}\n${filler.slice(0, (version * 977) % FILLER_BYTES_MAX)}\nend ${version}\n`;
}

export function lineOf(file: string, at: number): string {
  return `${file} ${at} ${'x'.repeat((at * 37) % 300)}\n`;
}

/** A claim about plain files holds in a directory. @throws AssertionError that says which does not */
export function assertFileClaim(dir: string, claim: Claim): void {
  const file = path.join(dir, claim.path);
  const what = JSON.stringify(claim);
  switch (claim.kind) {
    case 'file': {
      assert.ok(existsSync(file), `${what}: it is not there`);
      const content = readFileSync(file, 'latin1');
      const version = Number(content.split('\n', 1)[0]);
      assert.ok(version >= claim.version, `${what}: it is ${version}, of ${content.length} bytes`);
      assert.ok(content === contentOf(claim.path, version), `${what}: version ${version} is damaged`);
      return;
    }
    case 'lines': {
      assert.ok(existsSync(file), `${what}: it is not there`);
      const wanted = Array.from({ length: claim.lineCount }, (_, at) => lineOf(claim.path, at)).join('');
      assert.ok(readFileSync(file, 'latin1').startsWith(wanted), `${what}: lines are missing or damaged`);
      return;
    }
    case 'gone':
      assert.ok(!existsSync(file), `${what}: it is there`);
      return;
    case 'tree':
    case 'rows':
    case 'commit': // other programs know
  }
}
