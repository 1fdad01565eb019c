// The door to the transport for provider/, libfabric_prov/, collectives/ and tools/: devices and
// the verbs objects made on them.
//
// Ownership: create_* return raw pointers owned by the context; they die in destroy(), which
// refuses (EBUSY) while something else uses the object. close() destroys what is left of a context.
// Threads: every call may be made from any thread at any time, except that an object must not be
// used while or after it is destroyed. After fork() the child must not use them: calls fail with
// EPERM there. Errors: Status with an errno value; nothing is changed by a call that fails, unless
// said. Whatever makes something, changes its size or leads a queue pair to RTR may say ENOMEM.
// Nothing throws; what destroys something does not fail for want of memory. None of these calls
// prints anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tbt/status.h"
#include "tbt/types.h"

#define TBT_EXPORT __attribute__((visibility("default")))

namespace tbt {

class Context;
class Pd;
class Mr;
class Mw;
class Cq;
class Qp;
class Srq;
class Xrcd;

struct DeviceInfo {
  std::string name;   // "tbt0", "tbt0c0"
  uint64_t guid = 0;  // host order
};

struct DeviceAttr {
  uint64_t node_guid = 0;
  uint64_t sys_image_guid = 0;
  uint16_t vendor_id = 0;  // of the NHI
  uint16_t vendor_part_id = 0;
  std::string fw_version;
  uint64_t host_incarnation = 0;  // of the host's daemon: the same for all its processes
};

struct PortAttr {
  bool active = false;  // hello exchanged with at least one peer
  uint16_t lid = 0;
  uint8_t active_width = 0;  // verbs codes
  uint8_t active_speed = 0;
  uint32_t speed_100mbps = 0;
  uint32_t bad_pkey_cntr = 0;
  uint32_t qkey_viol_cntr = 0;
};

// Called by the transport, with its lock held: must not call back into tbt, must not block.
class CompletionSink {
 public:
  virtual void on_completion_event(Cq& cq) noexcept = 0;

 protected:
  ~CompletionSink() = default;
};

// The affiliated object's user pointer (given at creation) or nullptr for port and device events.
struct AsyncEvent {
  AsyncEventType type{};
  void* object = nullptr;
};
class AsyncSink {
 public:
  virtual void on_async_event(const AsyncEvent& event) noexcept = 0;

 protected:
  ~AsyncSink() = default;
};

struct CqOptions {
  uint32_t entries = 0;
  CompletionSink* sink = nullptr;  // must outlive the CQ; nullptr: no events
  void* user = nullptr;
};

struct QpOptions {
  QpType type = QpType::kRc;  // kXrcRecv is made by its Xrcd
  Cq* send_cq = nullptr;      // kXrcRecv: none of these three
  Cq* recv_cq = nullptr;      // kXrcSend: none
  Srq* srq = nullptr;
  QpCaps cap{};
  bool sq_sig_all = false;
  void* user = nullptr;  // handed back with async events
};

struct SrqOptions {
  uint32_t max_wr = 0;
  uint32_t max_sge = 0;
  uint32_t limit = 0;
  void* user = nullptr;
  Xrcd* xrcd = nullptr;  // makes it an XRC SRQ, which tells of its messages at a CQ of its own
  Cq* cq = nullptr;
};

// Protection domain.
class TBT_EXPORT Pd {
 public:
  // A region of no length has keys that open nothing.
  // Errors: EINVAL (access flags, wrap), EFAULT (memory not mapped so), ENOMEM.
  virtual Result<Mr*> reg_mr(void* addr, size_t length, uint64_t iova, uint32_t access) = 0;
  // Unbound. Errors: EINVAL (type), ENOMEM.
  virtual Result<Mw*> alloc_mw(MwType type) = 0;
  virtual Result<Qp*> create_qp(const QpOptions& options) = 0;
  virtual Result<Srq*> create_srq(const SrqOptions& options) = 0;
  // ENETUNREACH: no peer has that address.
  virtual Result<Ah*> create_ah(const AddressVector& av) = 0;
  virtual Status destroy() = 0;  // EBUSY while an MR, MW, QP, SRQ or AH of it lives

 protected:
  ~Pd() = default;
};

class TBT_EXPORT Mr {
 public:
  [[nodiscard]] virtual uint32_t lkey() const noexcept = 0;
  [[nodiscard]] virtual uint32_t rkey() const noexcept = 0;
  // Returns when the transport no longer touches the memory. EBUSY while a memory window is bound
  // to it.
  virtual Status destroy() = 0;
  // The same keys for another domain, memory or access; returns when the old memory is no longer
  // touched. On an error (those of reg_mr, or EBUSY as above) the region stays as it was.
  virtual Status rereg(Pd& pd, void* addr, size_t length, uint64_t iova, uint32_t access) = 0;

 protected:
  ~Mr() = default;
};

// Memory window: a part of a region with a key and rights of its own. Work requests bind and
// invalidate it.
class TBT_EXPORT Mw {
 public:
  [[nodiscard]] virtual MwType type() const noexcept = 0;
  // As last bound; a bind may change the low 8 bits only.
  [[nodiscard]] virtual uint32_t rkey() const noexcept = 0;
  virtual Status destroy() = 0;  // whether bound or not

 protected:
  ~Mw() = default;
};

class TBT_EXPORT Ah {
 public:
  virtual Status destroy() = 0;

 protected:
  ~Ah() = default;
};

class TBT_EXPORT Cq {
 public:
  // Fills `out` with the oldest completions and returns how many; makes progress first. Negative
  // errno if the CQ overflowed.
  virtual int poll(std::span<Wc> out) noexcept = 0;
  // One event at the next completion (the next solicited or failed one).
  virtual void arm(bool solicited_only) noexcept = 0;
  [[nodiscard]] virtual uint32_t entries() const noexcept = 0;
  virtual Status resize(uint32_t entries) = 0;
  // Events come only after `count` completions since the arming, or `period_us` after the first of
  // them. Either being 0, or one completion: at once.
  virtual Status moderate(uint32_t count, uint32_t period_us) = 0;
  virtual Status destroy() = 0;  // EBUSY while a QP uses it

 protected:
  ~Cq() = default;
};

class TBT_EXPORT Srq {
 public:
  virtual Status post_recv(const RecvWr& wr) noexcept = 0;
  virtual Status modify_limit(uint32_t limit) = 0;
  virtual Status resize(uint32_t max_wr) = 0;          // ENOSYS where not supported
  [[nodiscard]] virtual SrqOptions query() const = 0;  // granted sizes, the limit as it is armed
  [[nodiscard]] virtual uint32_t number() const noexcept = 0;
  // EBUSY while a queue pair uses it, or a message of XRC is arriving in it.
  virtual Status destroy() = 0;

 protected:
  ~Srq() = default;
};

class TBT_EXPORT Qp {
 public:
  [[nodiscard]] virtual uint32_t number() const noexcept = 0;
  [[nodiscard]] virtual QpState state() const noexcept = 0;
  virtual Status modify(const QpAttr& attr, uint32_t mask) = 0;
  virtual void query(QpAttr& attr) const = 0;  // all fields, with the granted caps
  // Posts in order and stops at the first refused one; `posted` says how many were taken. WRs, SGE
  // lists and inline data are consumed before it returns. Sends at once what can be sent. Errors:
  // EINVAL, ENOMEM (queue full).
  virtual Status post_send(std::span<const SendWr> wrs, size_t& posted) noexcept = 0;
  // As post_send, but posts all or, when one of them would be refused, nothing.
  virtual Status post_send_whole(std::span<const SendWr> wrs) noexcept = 0;
  virtual Status post_recv(const RecvWr& wr) noexcept = 0;
  virtual Status destroy() = 0;

 protected:
  ~Qp() = default;
};

// XRC domain: which SRQs the peers of a TGT queue pair may name.
class TBT_EXPORT Xrcd {
 public:
  // A TGT (kXrcRecv). Of the options only `user` matters.
  virtual Result<Qp*> create_qp(const QpOptions& options) = 0;
  virtual Status destroy() = 0;  // EBUSY while a queue pair or SRQ of it lives

 protected:
  ~Xrcd() = default;
};

class TBT_EXPORT Context {
 public:
  // Devices of this process's host. Attaches to the daemon the first time; if that cannot be, says
  // why.
  static TBT_EXPORT Result<std::vector<DeviceInfo>> list_devices();
  // ENODEV: no device of that name.
  static TBT_EXPORT Result<Context*> open(const std::string& name, AsyncSink* sink);

  [[nodiscard]] virtual DeviceAttr query_device() const = 0;
  [[nodiscard]] virtual PortAttr query_port() const = 0;
  // Index 0..kGidTableLen-1; a zero GID for an empty entry.
  [[nodiscard]] virtual Gid query_gid(uint32_t index) const = 0;
  virtual Result<Pd*> create_pd() = 0;
  virtual Result<Cq*> create_cq(const CqOptions& options) = 0;
  // A domain of its own, or one more handle of the domain of another (perhaps another context's).
  virtual Result<Xrcd*> create_xrcd(Xrcd* same_as) = 0;
  [[nodiscard]] virtual uint64_t now_ns() const noexcept = 0;  // the clock of Wc::timestamp_ns
  virtual void close() = 0;

 protected:
  ~Context() = default;
};

}  // namespace tbt
