import { parentPort, workerData } from 'node:worker_threads';

import { ShapedProxy } from '../test/fixtures/registry/shaped-proxy.ts';

/** A thread with a slow line to a registry: whoever measures blocks its own. */
export interface RegistryLineData {
  /** `host:port` */
  target: string;
  delayMs: number;
  bytesPerSec: number;
  /** Three numbers that the thread keeps: bytes to the registry, bytes from it, connections. */
  counts: SharedArrayBuffer;
}

/** What it says when it is ready. */
export interface RegistryLineMessage {
  host: string;
}

const COUNT_MS = 5;

const { target, delayMs, bytesPerSec, counts } = workerData as RegistryLineData;
const proxy = await ShapedProxy.start(target, {
  delayMs,
  upBytesPerSec: bytesPerSec,
  downBytesPerSec: bytesPerSec,
});
const kept = new Float64Array(counts);
setInterval(() => kept.set([proxy.upBytes, proxy.downBytes, proxy.connectionCount]), COUNT_MS);
parentPort?.postMessage({ host: proxy.host } satisfies RegistryLineMessage);
