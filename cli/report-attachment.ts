import { kindOf, type Attachment } from '../store/attachment.ts';
import type { Digest } from '../store/digest.ts';

/** An attachment as `--json` shows it. */
export interface ReportedAttachment {
  /** The kind where it has a name, else the artifact type. */
  type: string;
  artifactType: string;
  /** Of its first file. */
  title: string | null;
  /** Of all its files. */
  sizeBytes: number;
  digest: Digest;
  subject: Digest;
  created: string | null;
  files: { title: string | null; mediaType: string; digest: Digest; sizeBytes: number }[];
}

export function reportAttachment({ digest, artifactType, subject, created, files }: Attachment): ReportedAttachment {
  return {
    type: kindOf(artifactType),
    artifactType,
    title: files[0]?.title ?? null,
    sizeBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
    digest,
    subject,
    created: created === '' ? null : created,
    files: files.map((file) => ({ ...file, title: file.title ?? null })),
  };
}
