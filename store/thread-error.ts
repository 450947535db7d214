import { BentoError, errnoOf, type ErrorCode } from './errors.ts';

/** An error in a form that survives the way from one thread to another, where a class does not. */
export interface ThreadError {
  message: string;
  code?: ErrorCode;
  hint?: string | undefined;
  errno?: string | undefined;
}

export function packError(error: unknown): ThreadError {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof BentoError) return { message, code: error.code, hint: error.hint };
  return { message, errno: errnoOf(error) };
}

/** The error as it was thrown on the other thread. */
export function unpackError({ message, code, hint, errno }: ThreadError): Error {
  if (code !== undefined) return new BentoError(code, message, hint === undefined ? {} : { hint });
  return Object.assign(new Error(message), errno === undefined ? {} : { code: errno });
}
