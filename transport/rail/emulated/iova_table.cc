#include "rail/emulated/iova_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace tbt::rail::emulated {

// A file that shrinks while it is mapped kills whoever touches what is gone, so it must be one that
// cannot (QEMU seals its memfds). Mapping more than is backed by memory costs nothing.
Result<std::map<IovaTable::FileKey, IovaTable::File>::iterator> IovaTable::open_file(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return Status(errno, "fstat failed");
  const auto found = files_.find({info.st_dev, info.st_ino});
  if (found != files_.end()) return found;
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Status(EPERM, "the machine's memory is not a sealed memfd");
  }
  File file;
  file.bytes = static_cast<size_t>(info.st_size);
  if (file.bytes == 0) return Status(EINVAL, "the machine's memory is empty");
  void* const base =
      ::mmap(nullptr, file.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) return Status(errno, "cannot map the machine's memory");
  file.base = static_cast<std::byte*>(base);
  return files_.emplace(FileKey{info.st_dev, info.st_ino}, file).first;
}

bool IovaTable::overlaps(uint64_t iova, uint64_t bytes) const noexcept {
  const auto after = pieces_.lower_bound(iova);
  if (after != pieces_.end() && after->first - iova < bytes) return true;
  if (after == pieces_.begin()) return false;
  const auto before = std::prev(after);
  return iova - before->first < before->second.bytes;
}

Status IovaTable::map(uint64_t iova, uint64_t bytes, const sys::UniqueFd& fd, uint64_t file_offset,
                      bool writeable) {
  const bool whole = bytes != 0 && iova % kPageBytes == 0 && bytes % kPageBytes == 0;
  if (!whole || iova > UINT64_MAX - (bytes - 1)) return Status(EINVAL, "not whole pages");
  if (overlaps(iova, bytes)) return Status(EEXIST, "something is mapped there");
  if (pieces_.size() >= kPiecesMax) return Status(ENOSPC, "too many mappings");
  Piece piece{bytes, nullptr, files_.end()};
  if (fd && writeable) {
    const auto file = open_file(fd.get());
    if (!file) return file.error();
    piece.file = file.value();
    const File& whole_file = piece.file->second;
    if (file_offset > whole_file.bytes || bytes > whole_file.bytes - file_offset) {
      release(piece);
      return Status(EINVAL, "outside the file");
    }
    piece.base = whole_file.base + file_offset;
    piece.file->second.pieces++;
  }
  pieces_.emplace(iova, piece);
  return {};
}

// Unmaps the file with its last piece.
void IovaTable::release(const Piece& piece) noexcept {
  if (piece.file == files_.end()) return;
  File& file = piece.file->second;
  if (piece.base != nullptr) file.pieces--;
  if (file.pieces != 0) return;
  ::munmap(file.base, file.bytes);
  files_.erase(piece.file);
}

Status IovaTable::unmap(uint64_t iova, uint64_t bytes) {
  if (bytes == 0 || iova > UINT64_MAX - (bytes - 1)) return Status(EINVAL, "not a range");
  const uint64_t last = iova + (bytes - 1);
  const auto begin = pieces_.lower_bound(iova);
  if (begin != pieces_.begin()) {
    const auto before = std::prev(begin);
    if (iova - before->first < before->second.bytes) return Status(EINVAL, "cuts a mapping");
  }
  auto end = begin;
  for (; end != pieces_.end() && end->first <= last; ++end) {
    if (end->second.bytes - 1 > last - end->first) return Status(EINVAL, "cuts a mapping");
  }
  for (auto it = begin; it != end; ++it) release(it->second);
  pieces_.erase(begin, end);
  last_ = pieces_.end();
  return {};
}

void IovaTable::clear() noexcept {
  for (const auto& [iova, piece] : pieces_) release(piece);
  pieces_.clear();
  last_ = pieces_.end();
}

std::byte* IovaTable::find(uint64_t iova, uint64_t bytes) noexcept {
  if (last_ == pieces_.end() || iova - last_->first >= last_->second.bytes) {
    auto after = pieces_.upper_bound(iova);
    if (after == pieces_.begin()) return nullptr;
    last_ = std::prev(after);
  }
  const uint64_t into = iova - last_->first;
  if (last_->second.base == nullptr || into >= last_->second.bytes) return nullptr;
  std::byte* const found = last_->second.base + into;
  // What goes on in the next piece may lie behind this one in the file, too.
  uint64_t reached = last_->second.bytes - into;
  for (auto next = std::next(last_); reached < bytes; ++next) {
    if (next == pieces_.end() || next->first != iova + reached) return nullptr;
    if (next->second.base != found + reached) return nullptr;
    reached += next->second.bytes;
  }
  return found;
}

}  // namespace tbt::rail::emulated
