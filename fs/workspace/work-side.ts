import type { ByteString } from '../../store/byte-string.ts';
import { ContentReader } from '../contents/content-reader.ts';
import type { TreeSource } from '../tree/index-checkpoint.ts';
import type { Side } from './compare.ts';
import { LiveTree } from './live-tree.ts';
import { compileIgnore, type LayerRule } from './patterns.ts';
import { Titles } from './titles.ts';
import { openContent, WorkDigests, type WorkNode, type WorkTree } from './work-tree.ts';

export interface WorkSideOptions {
  label: string;
  rules: readonly LayerRule[];
}

/** A workspace as a side of a comparison. Apart from the other sides, for those who compare checkpoints need none of it. */
export function workSide(source: TreeSource, tree: WorkTree, { label, rules }: WorkSideOptions): Side {
  const digests = new WorkDigests(source, tree);
  const reader = new ContentReader(source.store, source.entries);
  const titles = new Titles(source.entries, [], rules);
  return {
    label,
    tree,
    index: source.index.path,
    digest: (path, node) => digests.of(path, node as WorkNode),
    remember: () => digests.remember(),
    content: (_, node) => openContent(tree, node as WorkNode, reader)?.pieces() ?? [],
    title: (path, node) => titles.titleFor(path, node.type === 'dir'),
    titles: titles.order,
  };
}

/** A directory that is neither a workspace nor mounted by bento: nothing is ignored, all of it is one group. */
export function directorySide(source: TreeSource, dir: ByteString, label: string): Side {
  const tree = LiveTree.scan(dir, { isIgnored: compileIgnore([]), exclude: new Set() });
  return workSide(source, tree, { label, rules: [{ name: 'files', patterns: [], catchAll: true }] });
}
