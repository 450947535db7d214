import test from 'ava';

import {
  entryOfNode,
  fileNodeId,
  hasRecordedOwners,
  namesOfNode,
  withRecordedOwners,
} from '../../../fs/serving/node-ids.ts';
import { entryId, NUMBER_MAX, POSITION_MAX } from '../../../index/rows.ts';

const IDS = [entryId(1, 1), entryId(7, 12_345), entryId(NUMBER_MAX, POSITION_MAX), entryId(NUMBER_MAX, 1)];

test('a node id holds entry, names and owners, and stays a safe integer', (t) => {
  const seen = new Set<number>();
  for (const id of IDS) {
    for (const names of [undefined, 1, 2, 127]) {
      const nodeId = fileNodeId(id, names);
      for (const node of [nodeId, withRecordedOwners(nodeId)]) {
        t.true(Number.isSafeInteger(node));
        t.is(entryOfNode(node), id);
        t.is(namesOfNode(node), names);
        t.is(hasRecordedOwners(node), node !== nodeId);
        seen.add(node);
      }
    }
  }
  t.is(seen.size, IDS.length * 8);
});

test('a file of which more names show than the id has room for keeps what its layer says', (t) => {
  t.is(fileNodeId(entryId(1, 1), 128), entryId(1, 1));
});
