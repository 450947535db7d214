import { parentPort, workerData, type MessagePort } from 'node:worker_threads';

import { allowGarbage } from '../../../store/buffer-garbage.ts';
import type { Digest } from '../../../store/digest.ts';
import { BentoError } from '../../../store/errors.ts';
import { LazyFetcher } from '../../../store/lazy/lazy-fetcher.ts';
import { SourceRegistries } from '../../../store/transfer/source-registries.ts';
import { CredentialFiles } from '../../../store/registry/credentials.ts';
import { wake } from '../../../store/syscalls.ts';
import { LargeReader } from '../../contents/large-reader.ts';
import { RemoteReader } from '../../contents/remote-reader.ts';
import { ERRNO, OPCODE, OPEN_FLAG, operationName } from '../../protocol/constants.ts';
import {
  decodeRequest,
  encodeReplyHeader,
  REPLY_HEADER_BYTES,
  REQUEST_HEADER_BYTES,
  type Request,
} from '../../protocol/header.ts';
import { encodeOpenOut, OPEN_OUT_BYTES } from '../../protocol/open.ts';
import { decodeReadIn } from '../../protocol/read.ts';
import { decodeName } from '../../protocol/wire.ts';
import { AllTree } from '../../serving/all-tree.ts';
import { registerBacking } from './backing.ts';
import type { Backing } from './connection.ts';
import type { Session } from '../../serving/handlers.ts';
import { entryOfNode } from '../../serving/node-ids.ts';
import { answer, errnoNumberOf, openSession, refuse, writeReply } from '../../serving/serve-loop.ts';
import type { AnswerAgain, ConnectionToServe, SlowRequest } from './serve-worker.ts';
import { RestFetcher } from './rest-fetcher.ts';
import { openServing, servedTree } from './served-trees.ts';

export interface SlowWorkerData {
  storeRoot: string;
  verified: SharedArrayBuffer;
}

/** What the slow lane is told. */
export type SlowWorkerOrder =
  | { connection: ConnectionToServe }
  | { ended: string }
  /** Of a thread that polls `wakeFd`, if it does: such a one answers requests again. */
  | { requests: MessagePort; wakeFd?: number }
  /** Known from a predecessor, or kept in a safe place now. */
  | { backing: Backing }
  /** A checkpoint is about to be mounted: what of it is in a registry is fetched in the background. */
  | { fetchRest: Digest };

/** What the slow lane says. */
export type SlowWorkerMessage =
  { backing: Backing } | { cached: true } | { note: string } | { error: string; operation: string; nodeId: number };

/** Past this a caller gets EIO, in milliseconds: nothing may wait for ever. 0 is for tests: nothing may take long. */
const DEADLINE_MS = Number(process.env['BENTO_SLOW_DEADLINE_MS'] ?? 60_000);
/** A request that waited for a part of a file wants more of it, most likely, and is answered from its beginning each time. */
const READ_ON_BYTES = 8 << 20;
const GARBAGE_BYTES_MAX = 32 << 20;
/** Readers wait: a network that is back is soon noticed. */
const RETRY_PAUSE_MAX_MS = 2_000;
/** In place of a number: the kernel refuses to open a file in two ways at once, so one read through us stays so. */
const NO_BACKING = 0;

/**
 * The slow lane: answers, on a thread whose event loop waits for the disk and for the thread pool, the requests for which
 * the thread that read them has no time.
 */
class SlowLane {
  readonly #serving;
  readonly #large: LargeReader;
  readonly #connections = new Map<string, { fd: number; session: Session }>();
  readonly #backings = new Map<number, Promise<Backing>>();
  /** Called when the supervisor has the number. */
  readonly #kept = new Map<number, () => void>();

  readonly #rest: RestFetcher;

  constructor(serving: Awaited<ReturnType<typeof openServing>>) {
    this.#serving = serving;
    const onNote = (note: string): void => tell({ note });
    const registries = new SourceRegistries({
      credentials: new CredentialFiles({ note: onNote }),
      onRetry: onNote,
      limits: { pauseMaxMs: RETRY_PAUSE_MAX_MS },
    });
    const fetcher = new LazyFetcher(serving.store.root, (source) => registries.repository(source));
    this.#large = new LargeReader(serving.store, serving.entries, serving.cache, {
      onFilled: () => tell({ cached: true }),
      onNote,
      remote: new RemoteReader(fetcher, DEADLINE_MS),
    });
    this.#rest = new RestFetcher(serving.store, fetcher, onNote);
    void this.#rest.wantMounted();
  }

  obey(order: SlowWorkerOrder): void {
    if ('connection' in order) this.#open(order.connection);
    else if ('ended' in order) this.#connections.delete(order.ended);
    else if ('requests' in order) this.#listen(order);
    else if ('fetchRest' in order) this.#rest.want(order.fetchRest);
    else this.#keep(order.backing);
  }

  #listen({ requests, wakeFd }: { requests: MessagePort; wakeFd?: number }): void {
    requests.on('message', (request: SlowRequest) => {
      void this.#handle(request, ({ target, bytes }) => {
        if (wakeFd === undefined) throw new BentoError('DAEMON_FAILED', 'nobody can answer this again');
        requests.postMessage({ again: { target, bytes } } satisfies AnswerAgain);
        wake(wakeFd);
      });
    });
  }

  #open(connection: ConnectionToServe): void {
    const { tree, options } = servedTree(this.#serving, connection);
    this.#connections.set(connection.target, { fd: connection.fd, session: openSession(tree, options) });
  }

  #keep(backing: Backing): void {
    const known = this.#kept.get(backing.nodeId);
    if (known === undefined) this.#backings.set(backing.nodeId, Promise.resolve(backing));
    else known();
  }

  /** @param answerAgain - gives the request back to the thread that it came from */
  async #handle(slow: SlowRequest, answerAgain: (request: SlowRequest) => void): Promise<void> {
    const { target, bytes, missing } = slow;
    const connection = this.#connections.get(target);
    if (connection === undefined) return; // unmounted meanwhile, and its callers with it
    const { fd } = connection;
    const requestBytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const over = new AbortController();
    const giveUp = (): void => {
      over.abort();
      const { opcode, nodeId } = decodeRequest(requestBytes);
      tell({ error: `no answer within ${DEADLINE_MS / 1000} s`, operation: operationName(opcode), nodeId });
      refuse(fd, requestBytes, ERRNO.EIO);
    };
    if (DEADLINE_MS === 0) {
      giveUp();
      return;
    }
    const deadline = setTimeout(giveUp, DEADLINE_MS);
    try {
      if (missing === undefined) {
        writeReply(fd, await this.#reply(connection, decodeRequest(requestBytes)));
        return;
      }
      await this.#large.bring(missing.id, missing.offset, missing.lengthBytes + READ_ON_BYTES);
      if (!over.signal.aborted) answerAgain(slow);
    } catch (error) {
      const { opcode, nodeId } = decodeRequest(requestBytes);
      const message = error instanceof Error ? error.message : String(error);
      tell({ error: message, operation: operationName(opcode), nodeId });
      refuse(fd, requestBytes, errnoNumberOf(error));
    } finally {
      clearTimeout(deadline);
    }
  }

  async #reply({ fd, session }: { fd: number; session: Session }, request: Request): Promise<Buffer> {
    if (request.opcode === OPCODE.READ) return await this.#read(request);
    if (request.opcode === OPCODE.OPEN) return await this.#openPassthrough(fd, request);
    if (request.opcode === OPCODE.LOOKUP && session.tree instanceof AllTree) await this.#prepare(session.tree, request);
    const replyBytes = answer(session, request.bytes, undefined);
    if (replyBytes === 'slow' || replyBytes === 0) throw new BentoError('DAEMON_FAILED', 'nobody can answer this');
    return Buffer.from(session.reply.subarray(0, replyBytes));
  }

  async #read({ nodeId, bytes }: Request): Promise<Buffer> {
    const { offset, sizeBytes } = decodeReadIn(bytes);
    const content = await this.#large.read(entryOfNode(nodeId), offset, sizeBytes);
    const reply = Buffer.allocUnsafe(REPLY_HEADER_BYTES + content.length);
    encodeReplyHeader(reply, bytes, content.length, 0);
    content.copy(reply, REPLY_HEADER_BYTES);
    return reply;
  }

  async #prepare(tree: AllTree, { nodeId, bytes }: Request): Promise<void> {
    await tree.prepare(this.#serving, nodeId, decodeName(bytes, REQUEST_HEADER_BYTES));
  }

  /** The kernel reads the file in the cache by itself from here on; one that cannot be kept there is read through us. */
  async #openPassthrough(fd: number, { nodeId, bytes }: Request): Promise<Buffer> {
    const { backingId } = await this.#backing(fd, nodeId);
    const reply = Buffer.alloc(REPLY_HEADER_BYTES + OPEN_OUT_BYTES);
    const openFlags = backingId === NO_BACKING ? OPEN_FLAG.KEEP_CACHE : OPEN_FLAG.PASSTHROUGH; // never both: EIO
    encodeOpenOut(reply, REPLY_HEADER_BYTES, { fh: 0, openFlags, backingId });
    encodeReplyHeader(reply, bytes, OPEN_OUT_BYTES, 0);
    return reply;
  }

  async #backing(fd: number, nodeId: number): Promise<Backing> {
    const known = this.#backings.get(nodeId);
    if (known !== undefined) return await known;
    const registered = this.#register(fd, nodeId);
    this.#backings.set(nodeId, registered);
    registered.catch(() => this.#backings.delete(nodeId));
    return await registered;
  }

  /** The number must be in a safe place before a caller has it: a successor that gave the file another would get EIO. */
  async #register(fd: number, nodeId: number): Promise<Backing> {
    const content = await this.#large.fill(entryOfNode(nodeId));
    // The descriptor stays open: it keeps the copy from being evicted, which would only free its name.
    const backing = { nodeId, backingId: content === undefined ? NO_BACKING : registerBacking(fd, content.fd) };
    await new Promise<void>((resolve) => {
      this.#kept.set(nodeId, resolve);
      tell({ backing });
    });
    this.#kept.delete(nodeId);
    return backing;
  }
}

function tell(message: SlowWorkerMessage): void {
  parentPort?.postMessage(message);
}

async function main({ storeRoot, verified }: SlowWorkerData): Promise<void> {
  allowGarbage(GARBAGE_BYTES_MAX, 'major');
  const lane = new SlowLane(await openServing(storeRoot, verified));
  parentPort?.on('message', (order: SlowWorkerOrder) => lane.obey(order));
}

void main(workerData as SlowWorkerData);
