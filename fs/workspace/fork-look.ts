import { parentPath, type ByteString } from '../../store/byte-string.ts';
import { digestOf, type Digest } from '../../store/digest.ts';
import type { OverlayTree } from '../overlay/overlay-tree.ts';
import type { PathTest } from '../tree/tree.ts';
import { LiveTree, type ScanPlace } from './live-tree.ts';
import type { Compared, WorkTree } from './work-tree.ts';

export interface ForkLook {
  isIgnored: PathTest;
  place: ScanPlace;
  /** The checkpoint that the fork stands on. */
  manifest: Digest;
}

/**
 * A fork's tree that knows whether its upper directory is as it was when the fork was last compared: then it differs from
 * that checkpoint in what it differed in. The upper is looked at like a directory of its own, which takes a fraction of
 * merging it with what is below; marks of the overlay's are attributes, which move the ctime.
 */
export function withLook(tree: OverlayTree, { isIgnored, place, manifest }: ForkLook): WorkTree {
  const look = LiveTree.scan(tree.upper, { isIgnored, exclude: new Set() }, place);
  const below = digestOf(`${manifest} ${place.rules}`);
  return Object.assign(tree, {
    isUnchangedSince(layers: readonly Digest[]): boolean {
      if (!look.isUnchangedSince([below, ...layers])) return false;
      // The tree finds them when it is walked, which nobody does now.
      tree.skipped.push(...look.skipped.filter(({ path }) => !isInIgnored(path, isIgnored)));
      return true;
    },
    rememberLook(compared?: Compared): void {
      look.remember?.(compared && { ...compared, layers: [below, ...compared.layers], differing: undefined });
    },
  });
}

function isInIgnored(path: ByteString, isIgnored: PathTest): boolean {
  for (let dir = parentPath(path); dir !== ''; dir = parentPath(dir)) if (isIgnored(dir, true)) return true;
  return isIgnored(path, false);
}
