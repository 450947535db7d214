import { fromText, toText, type ByteString } from '../../../store/byte-string.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import type { Layout } from '../../../store/layout.ts';
import { updateConfig } from '../config-file.ts';
import { recordHead } from '../heads.ts';
import { STAGING_NAME } from '../patterns.ts';
import { carryOut, removeStaging, type CarriedOut } from './carry-out.ts';
import { readJournal, type Journal } from './journal.ts';
import { lstatIfAny } from './plan.ts';

export function stagingOf(dir: ByteString): ByteString {
  return `${dir}/${STAGING_NAME}`;
}

/**
 * Ends what an `open` that was killed had begun in a workspace. With a whole journal it is finished: nobody can tell
 * afterwards. Without one, nothing but the staging folder had been touched, and that goes. The caller holds the save lock, so
 * nobody is at work here.
 *
 * @param dir - the workspace, without symlinks
 * @returns what was done, in one line for the user; undefined when there was nothing to do
 */
export async function settleInterrupted(dir: string, layout: Layout): Promise<string | undefined> {
  const target = fromText(dir);
  const staging = stagingOf(target);
  if (lstatIfAny(staging) === undefined) return undefined;
  const journal = readJournalIfValid(staging);
  if (journal === undefined) {
    removeStaging(staging);
    return 'note: an interrupted `bento open` had changed nothing yet; what it had prepared is cleared away';
  }
  const done = await carryOut(target, staging, journal, async (head) => await moveHead({ dir, layout }, head));
  return `note: finished an interrupted \`bento open\`${describeExceptions(done)}; \`bento open undo\` takes it back`;
}

/** Such a folder may have come with files of somebody else: then it is no reason to stop, and nothing to obey. */
function readJournalIfValid(staging: ByteString): Journal | undefined {
  try {
    return readJournal(staging);
  } catch (error) {
    if (error instanceof BentoError && error.code === 'FORMAT_INVALID') return undefined;
    throw error;
  }
}

/** @param head - null for none; undefined when it stays where it is */
export async function moveHead(
  { dir, layout }: { dir: string; layout: Layout },
  head: Digest | null | undefined,
): Promise<void> {
  if (head === undefined) return;
  await recordHead(layout, dir, head ?? undefined);
  await updateConfig(dir, { head: head ?? undefined });
}

/** Empty when all went as planned. */
export function describeExceptions({ kept, failed }: Pick<CarriedOut, 'kept' | 'failed'>): string {
  const parts = [
    ...(kept[0] === undefined
      ? []
      : [`${kept.length} changed meanwhile and stayed as they are, first ${toText(kept[0])}`]),
    ...(failed[0] === undefined ? [] : [`${failed.length} could not be changed, first ${failed[0]}`]),
  ];
  return parts.length === 0 ? '' : ` (${parts.join('; ')})`;
}
