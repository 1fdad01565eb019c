// XRC domains, and the shared receive queues that belong to them.
//
// A domain that is opened with a file descriptor is named by the file: whoever opens it again gets
// a handle of the same domain. That holds within a process. A queue pair and the shared receive
// queues that its peer may name must live in one process, because the transport does, so a second
// process of the host is refused (EBUSY) instead of being given a domain that is another one. What
// says that a file is taken is a socket of the abstract namespace: the kernel gives one process the
// name, and takes it back when the process ends.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "objects.h"

namespace tbt::provider {

// A file whose domain this process has open.
class XrcdFile {
 public:
  XrcdFile(const Device* device, dev_t dev, ino_t ino) noexcept
      : device_(device), dev_(dev), ino_(ino) {}
  XrcdFile(const XrcdFile&) = delete;
  XrcdFile& operator=(const XrcdFile&) = delete;
  ~XrcdFile() {
    if (socket_ >= 0) close(socket_);
  }

  // False if another process of this host has it.
  bool claim(uint64_t host) noexcept {
    socket_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0) return false;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    // The first byte is 0: no file comes of it.
    const int length = std::snprintf(
        address.sun_path + 1, sizeof address.sun_path - 1, "tbt-xrcd-%llx-%llx-%llx-%llx",
        static_cast<unsigned long long>(host), static_cast<unsigned long long>(device_->guid),
        static_cast<unsigned long long>(dev_), static_cast<unsigned long long>(ino_));
    const size_t bytes = offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(length);
    return bind(socket_, reinterpret_cast<const sockaddr*>(&address),
                static_cast<socklen_t>(bytes)) == 0;
  }
  [[nodiscard]] bool is(const Device* device, const struct stat& file) const noexcept {
    return device_ == device && dev_ == file.st_dev && ino_ == file.st_ino;
  }

 private:
  const Device* device_;
  dev_t dev_;
  ino_t ino_;
  int socket_ = -1;
};

struct Xrcd final : ibv_xrcd {
  tbt::Xrcd* impl = nullptr;
  std::shared_ptr<XrcdFile> file;  // none: without a descriptor
};

namespace {

// Those with a file.
std::mutex open_mutex;
std::vector<Xrcd*> open_domains;

Xrcd* find_open(const Device* device, const struct stat& file) noexcept {
  const auto found = std::ranges::find_if(
      open_domains, [&](const Xrcd* xrcd) { return xrcd->file->is(device, file); });
  return found == open_domains.end() ? nullptr : *found;
}

bool make(ibv_context* context, Xrcd& xrcd, Xrcd* same_as) noexcept {
  Result<tbt::Xrcd*> made =
      state_of(context).impl->create_xrcd(same_as != nullptr ? same_as->impl : nullptr);
  if (!made) return fail(made.error()) != nullptr;
  xrcd.impl = *made;
  xrcd.context = context;
  return true;
}

// Of a file. 0, or the errno.
int open_file(ibv_context* context, int fd, int flags, Xrcd& xrcd) noexcept {
  struct stat file;
  if (fstat(fd, &file) != 0) return errno;
  const auto& device = static_cast<const Device&>(*context->device);
  const std::lock_guard hold(open_mutex);
  Xrcd* same_as = find_open(&device, file);
  if (same_as != nullptr && (flags & O_EXCL) != 0) return EINVAL;
  if (same_as == nullptr && (flags & O_CREAT) == 0) return EAGAIN;
  try {
    open_domains.reserve(open_domains.size() + 1);
    xrcd.file = same_as != nullptr ? same_as->file
                                   : std::make_shared<XrcdFile>(&device, file.st_dev, file.st_ino);
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
  if (same_as == nullptr &&
      !xrcd.file->claim(state_of(context).impl->query_device().host_incarnation)) {
    return errno == EADDRINUSE ? EBUSY : errno;
  }
  if (!make(context, xrcd, same_as)) return errno;
  open_domains.push_back(&xrcd);
  return 0;
}

}  // namespace

ibv_xrcd* open_xrcd(ibv_context* context, ibv_xrcd_init_attr* attr) noexcept {
  constexpr uint32_t kNeeded = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
  if (attr->comp_mask != kNeeded || (attr->oflags & ~(O_CREAT | O_EXCL)) != 0) return fail(EINVAL);
  auto xrcd = std::unique_ptr<Xrcd>(new (std::nothrow) Xrcd{});
  if (!xrcd) return fail(ENOMEM);
  if (attr->fd < 0) return make(context, *xrcd, nullptr) ? xrcd.release() : nullptr;
  const int code = open_file(context, attr->fd, attr->oflags, *xrcd);
  return code == 0 ? xrcd.release() : fail(code);
}

int close_xrcd(ibv_xrcd* ibv_xrcd) noexcept {
  auto* xrcd = static_cast<Xrcd*>(ibv_xrcd);
  const std::lock_guard hold(open_mutex);
  if (const Status status = xrcd->impl->destroy(); !status) return status.code();
  std::erase(open_domains, xrcd);
  delete xrcd;
  return 0;
}

// The transport's objects go with their context; what the application has not closed is left alone,
// as other objects are.
void forget_xrcds(ibv_context* context) noexcept {
  const std::lock_guard hold(open_mutex);
  for (Xrcd* xrcd : open_domains) {
    if (xrcd->context == context) xrcd->file.reset();
  }
  std::erase_if(open_domains, [context](const Xrcd* xrcd) { return xrcd->context == context; });
}

tbt::Xrcd* impl_of(ibv_xrcd* xrcd) noexcept { return static_cast<Xrcd*>(xrcd)->impl; }

}  // namespace tbt::provider
