import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import test, { type ExecutionContext } from 'ava';

import type { Session } from '../../../fs/serving/handlers.ts';
import { negotiate } from '../../../fs/serving/negotiate.ts';
import { answer, openSession } from '../../../fs/serving/serve-loop.ts';
import type { ServedTree } from '../../../fs/serving/served-tree.ts';
import { StoreTree } from '../../../fs/serving/store-tree.ts';
import { ATTR_OUT_BYTES, ENTRY_OUT_BYTES } from '../../../fs/protocol/attr.ts';
import { OPCODE, operationName, ROOT_NODE_ID } from '../../../fs/protocol/constants.ts';
import { decodeDirents, decodeDirentsPlus } from '../../../fs/protocol/dirent.ts';
import { decodeReplyHeader, REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES } from '../../../fs/protocol/header.ts';
import { INIT_OUT_BYTES } from '../../../fs/protocol/init.ts';
import { OPEN_OUT_BYTES } from '../../../fs/protocol/open.ts';
import { STATFS_OUT_BYTES } from '../../../fs/protocol/statfs.ts';
import { ProtocolError } from '../../../fs/protocol/wire.ts';
import { ContentReader } from '../../../fs/contents/content-reader.ts';
import { saveWorkspace } from '../../../fs/workspace/save.ts';
import { changeDirectory } from '../../fixtures/random-directory.ts';
import { Random } from '../../fixtures/random.ts';
import { headOf, newWorkspace } from '../../fixtures/workspaces.ts';
import { sampleTree } from './memory-tree.ts';

const REQUEST_COUNT = 10_000;
/** What lies around a request, and what lies in the reply buffer before: none of it may be in a reply. */
const [AROUND, BEFORE] = [0xc5, 0xa7];
const RUN_BYTES = 4;
const MARGIN_BYTES = 4096;
/** Longer replies than this are of files alone. */
const FILLED_BYTES = 100_000;
const OVERSIZED_BYTES = 1_052_672;
const OPCODES = Object.values(OPCODE);
/** What is asked most, so that it is asked with everything. */
const COMMON = (
  ['LOOKUP', 'GETATTR', 'READLINK', 'READ', 'READDIR', 'READDIRPLUS', 'STATFS', 'LISTXATTR'] as const
).map((name) => OPCODE[name]);
const UNANSWERED: ReadonlySet<number> = new Set([
  OPCODE.FORGET,
  OPCODE.BATCH_FORGET,
  OPCODE.INTERRUPT,
  OPCODE.NOTIFY_REPLY,
]);

/** How long the body of a success is, where that is always the same. */
const BODY_BYTES: ReadonlyMap<number, number> = new Map([
  [OPCODE.LOOKUP, ENTRY_OUT_BYTES],
  [OPCODE.GETATTR, ATTR_OUT_BYTES],
  [OPCODE.OPEN, OPEN_OUT_BYTES],
  [OPCODE.OPENDIR, OPEN_OUT_BYTES],
  [OPCODE.STATFS, STATFS_OUT_BYTES],
  [OPCODE.INIT, INIT_OUT_BYTES],
]);

type Shape = (random: Random) => Buffer;

/** What a tree knows, so that not every request is about nothing. */
interface Known {
  nodeIds: number[];
  names: string[];
}

/** Numbers at which something may go wrong, and any others. */
function oddNumber(random: Random): bigint {
  const edges = [
    0n,
    1n,
    2n,
    63n,
    4096n,
    1n << 31n,
    1n << 32n,
    1n << 53n,
    (1n << 63n) - 1n,
    1n << 63n,
    (1n << 64n) - 1n,
  ];
  return random.chance(0.66) ? random.pick(edges) : random.bytes(8).readBigUInt64LE();
}

function header(random: Random, known: Known, bodyBytes: number): Buffer {
  const bytes = random.bytes(REQUEST_HEADER_BYTES);
  bytes.writeUInt32LE(REQUEST_HEADER_BYTES + bodyBytes, 0);
  bytes.writeUInt32LE(
    random.chance(0.5) ? random.pick(COMMON) : random.chance(0.9) ? random.pick(OPCODES) : random.below(5000),
    4,
  );
  const isKnown = random.chance(0.8);
  bytes.writeBigUInt64LE(
    isKnown ? BigInt(random.chance(0.4) ? ROOT_NODE_ID : random.pick(known.nodeIds)) : oddNumber(random),
    16,
  );
  return bytes;
}

/** A body as one of the requests has it, with numbers that no kernel would send. */
function oddBody(random: Random, known: Known): Buffer {
  const name = random.chance(0.5) ? random.pick(known.names) : random.bytes(random.below(400)).toString('latin1');
  const nul = random.chance(0.75) ? '\0' : '';
  switch (random.below(5)) {
    case 0:
      return Buffer.from(name + nul, 'latin1');
    case 1: {
      const read = Buffer.alloc(40);
      read.writeBigUInt64LE(oddNumber(random), 8);
      read.writeUInt32LE(random.chance(0.5) ? random.below(70_000) : Number(oddNumber(random) & 0xffff_ffffn), 16);
      return read;
    }
    case 2: {
      const getxattr = Buffer.alloc(8);
      getxattr.writeUInt32LE(Number(oddNumber(random) & 0xffff_ffffn));
      return Buffer.concat([getxattr, Buffer.from(random.chance(0.5) ? `user.plain${nul}` : name + nul, 'latin1')]);
    }
    case 3:
      return random.bytes(random.below(120));
    default:
      return Buffer.alloc(random.pick([0, 8, 16, 24, 40, 64]), random.below(256));
  }
}

function shapes(known: Known): Shape[] {
  const whole: Shape = (random) => {
    const body = oddBody(random, known);
    return Buffer.concat([header(random, known, body.length), body]);
  };
  return [
    (random) => random.bytes(random.below(200)),
    whole,
    whole,
    whole,
    (random) => {
      const bytes = whole(random);
      return bytes.subarray(0, random.below(bytes.length + 1)); // cut off; its header does not say so
    },
    (random) => {
      const bytes = whole(random);
      const cut = bytes.subarray(0, REQUEST_HEADER_BYTES + random.below(bytes.length - REQUEST_HEADER_BYTES + 1));
      cut.writeUInt32LE(cut.length, 0);
      return cut;
    },
    (random) => {
      const bytes = whole(random);
      for (let i = 0; i < 3; i += 1) bytes[random.below(bytes.length)] = random.below(256);
      return bytes;
    },
    (random) => {
      const extra = random.chance(0.01) ? OVERSIZED_BYTES : random.below(300);
      const bytes = Buffer.concat([whole(random), Buffer.alloc(extra, random.below(256))]);
      if (random.chance(0.5)) bytes.writeUInt32LE(bytes.length, 0);
      return bytes;
    },
  ];
}

/** Puts a request where a reader that goes too far in either direction finds something else. */
function surrounded(request: Buffer, by = AROUND): Buffer {
  const room = Buffer.alloc(request.length + 2 * MARGIN_BYTES, by);
  request.copy(room, MARGIN_BYTES);
  return room.subarray(MARGIN_BYTES, MARGIN_BYTES + request.length);
}

const RUNS = [AROUND, BEFORE].map((byte) => Buffer.alloc(RUN_BYTES, byte));

/** What is wrong with a reply, which is empty where there is none; undefined when nothing is. */
function faultOf(request: Buffer, reply: Buffer): string | undefined {
  const isWhole = request.length >= REQUEST_HEADER_BYTES && request.readUInt32LE(0) === request.length;
  const opcode = isWhole ? request.readUInt32LE(4) : -1;
  if (reply.length === 0) return request.length >= 16 && !UNANSWERED.has(opcode) ? 'nobody answers' : undefined;
  const { error, unique } = decodeReplyHeader(reply); // it throws when the length is wrong
  if (error > 0 || error < -999) return `error ${error}`;
  if (!unique.equals(request.subarray(8, 16))) return 'it answers another request';
  if (error < 0) return reply.length === REPLY_HEADER_BYTES ? undefined : 'an error with a body';
  if (UNANSWERED.has(opcode)) return 'a reply that the kernel does not expect';
  if (RUNS.some((run) => !request.includes(run) && reply.includes(run))) return 'bytes from elsewhere';
  return faultOfBody(opcode, request, reply.subarray(REPLY_HEADER_BYTES));
}

function faultOfBody(opcode: number, request: Buffer, body: Buffer): string | undefined {
  if ((BODY_BYTES.get(opcode) ?? body.length) !== body.length) return `a body of ${body.length} bytes`;
  if (opcode === OPCODE.READDIR) decodeDirents(body);
  if (opcode === OPCODE.READDIRPLUS) decodeDirentsPlus(body);
  const isRead = opcode === OPCODE.READ || opcode === OPCODE.READDIR || opcode === OPCODE.READDIRPLUS;
  if (isRead && body.length > request.readUInt32LE(REQUEST_HEADER_BYTES + 16)) return 'more than was asked for';
  return undefined;
}

function knownOf(tree: ServedTree): Known {
  const known: Known = { nodeIds: [1], names: ['.', '..', ''] };
  for (const nodeId of known.nodeIds) {
    if (known.nodeIds.length > 200) break;
    for (const { name, node } of tree.readdir(nodeId)?.slice(0, 50) ?? []) {
      known.nodeIds.push(node.nodeId);
      known.names.push(name);
    }
  }
  return known;
}

interface Tally {
  /** Opcodes that were answered with success at least once. */
  succeeded: Set<number>;
  /** Errors that were no plain answers. */
  reported: number;
}

function throwEverythingAt(t: ExecutionContext, session: Session, seed: number): Tally {
  const random = new Random(seed);
  const kinds = shapes(knownOf(session.tree));
  const tally: Tally = { succeeded: new Set(), reported: 0 };
  for (let i = 0; i < REQUEST_COUNT; i += 1) {
    const request = random.pick(kinds)(random);
    const elsewhere = replyTo(session, surrounded(request, 0)).reply;
    const { reply, reported } = replyTo(session, surrounded(request));
    const fault = elsewhere.equals(reply) ? faultOf(request, reply) : 'what lies around it matters';
    if (fault !== undefined) t.fail(`request ${i} of seed ${seed}: ${fault}: ${request.toString('hex', 0, 200)}`);
    if (reported) tally.reported += 1;
    else if (reply.length > 0 && reply.readInt32LE(4) === 0) tally.succeeded.add(request.readUInt32LE(4));
  }
  return tally;
}

/** @returns the reply, empty where there is none, and whether anything was reported to be wrong */
function replyTo(session: Session, request: Buffer): { reply: Buffer; reported: boolean } {
  let reported = false;
  session.reply.fill(BEFORE, 0, FILLED_BYTES);
  const replyBytes = answer(session, request, () => (reported = true));
  if (replyBytes === 'slow') throw new Error('nothing here is slow');
  return { reply: Buffer.from(session.reply.subarray(0, replyBytes)), reported };
}

/** So that the fuzzing cannot get past everything without anybody noticing. */
function expectDepth(t: ExecutionContext, { succeeded, reported }: Tally): void {
  for (const opcode of COMMON) t.true(succeeded.has(opcode), operationName(opcode));
  t.true(reported > REQUEST_COUNT / 10, `${reported} were refused`);
}

test('answer() survives ten thousand random, cut off and oversized requests for a tree in memory', (t) => {
  const session = openSession(sampleTree());
  expectDepth(t, throwEverythingAt(t, session, 1));
  t.true(session.listings.size <= 64);
});

test('answer() survives them for the checkpoints of a store', async (t) => {
  const random = new Random(3);
  const workspace = await newWorkspace(t);
  for (let i = 0; i < 4; i += 1) {
    changeDirectory(workspace.dir, random, 12);
    writeFileSync(join(workspace.dir, `large-${i}`), random.bytes(100_000));
    await saveWorkspace(workspace);
    await headOf(workspace);
  }
  const { store, entries, trees } = workspace.source;
  const reader = new ContentReader(store, entries);
  t.teardown(() => reader.close());
  for (const keepOwners of [false, true]) {
    const tree = new StoreTree(entries, trees, reader, { owner: { uid: 7, gid: 8 }, keepOwners });
    const session = openSession(tree, { mayGrow: (nodeId) => nodeId === 1, xattrs: true });
    expectDepth(t, throwEverythingAt(t, session, 5));
    t.true(session.listings.size <= 64);
  }
});

test('negotiate() refuses what is no INIT in one way only', (t) => {
  const random = new Random(7);
  const kinds = shapes({ nodeIds: [0, 1], names: ['x'] });
  let agreed = 0;
  for (let i = 0; i < REQUEST_COUNT; i += 1) {
    const request = random.pick(kinds)(random);
    if (request.length >= 44 && i % 2 === 0) {
      request.writeUInt32LE(OPCODE.INIT, 4);
      request.writeUInt32LE(7, 40);
    }
    try {
      const { reply } = negotiate(surrounded(request), { passthrough: i % 3 === 0, openless: true });
      t.is(decodeReplyHeader(reply).sizeBytes, REPLY_HEADER_BYTES + INIT_OUT_BYTES);
      agreed += 1;
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
    }
  }
  t.true(agreed > 100, `${agreed} were agreed on`);
});
