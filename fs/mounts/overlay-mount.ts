import { fromText } from '../../store/byte-string.ts';
import { mount, MS_NODEV, MS_NOSUID } from '../../store/syscalls.ts';

/** The folders of an overlay, absolute; `upper` and `work` are on one file system. */
export interface OverlayDirs {
  lower: string;
  upper: string;
  work: string;
}

/**
 * Metacopy and the inode index are off whatever the kernel's default: then an upper directory holds whole files, and a save
 * can read it without the lower. Redirects are on, for else no directory of the checkpoint could be renamed. With
 * `userxattr`, which overlays of a user namespace need, there are none in any case, and asking for them is an error.
 *
 * @throws what mount(2) throws
 */
export function mountOverlay(target: string, { lower, upper, work }: OverlayDirs, userxattr: boolean): void {
  const options = ['metacopy=off', 'index=off', 'xino=auto', userxattr ? 'userxattr' : 'redirect_dir=on'];
  const dirs = [`lowerdir=${escapePath(lower)}`, `upperdir=${escapePath(upper)}`, `workdir=${escapePath(work)}`];
  const data = fromText([...dirs, ...options].join(','));
  mount('bento', fromText(target), 'overlay', MS_NOSUID | MS_NODEV, data);
}

/** @see overlayfs.rst: colons separate lower layers, commas options, and a backslash quotes either */
function escapePath(path: string): string {
  return path.replace(/[\\:,]/g, '\\$&');
}
