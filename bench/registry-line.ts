import { parentPort, workerData } from 'node:worker_threads';

import { startDebianRegistry } from '../test/fixtures/registry/debian-registry.ts';
import { ShapedProxy } from '../test/fixtures/registry/shaped-proxy.ts';

/**
 * A thread with a registry and a slow line to it: whoever measures blocks its own, and would keep the registry from being
 * rid of what it logs.
 */
export interface RegistryLineData {
  delayMs: number;
  bytesPerSec: number;
  /** Three numbers that the thread keeps: bytes to the registry, bytes from it, connections. */
  counts: SharedArrayBuffer;
}

/** What it says when it is ready; after any message to it, it ends the registry and itself. */
export interface RegistryLineMessage {
  /** `host:port` of the slow line. */
  slow: string;
  /** Of the registry itself. */
  direct: string;
}

const COUNT_MS = 5;

const { delayMs, bytesPerSec, counts } = workerData as RegistryLineData;
const registry = await startDebianRegistry();
const proxy = await ShapedProxy.start(registry.host, {
  delayMs,
  upBytesPerSec: bytesPerSec,
  downBytesPerSec: bytesPerSec,
});
const kept = new Float64Array(counts);
const timer = setInterval(() => kept.set([proxy.upBytes, proxy.downBytes, proxy.connectionCount]), COUNT_MS);
parentPort?.once('message', () => {
  clearInterval(timer);
  void proxy.stop().then(async () => await registry.stop());
});
parentPort?.postMessage({ slow: proxy.host, direct: registry.host } satisfies RegistryLineMessage);
