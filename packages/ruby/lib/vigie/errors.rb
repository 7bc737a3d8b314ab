# The exceptions of the package, and how they are made from what the library says.
#
# Each is of a class by the kind of its status; Vigie::MaybeExecuted is mixed into those whose command was sent and not answered.
module Vigie
  # Mixed into an error whose command was sent and not answered: it may have run. Look before you send it again.
  module MaybeExecuted; end

  # What the library, a server or the network refused. The message says what was tried, where, what happened and after how long.
  class Error < StandardError
    # The number of the library, such as -103.
    attr_reader :status
    # Its name, such as "TIMEOUT".
    attr_reader :name
    # The first word of a server's error, such as "WRONGTYPE", or "".
    attr_reader :code
    # The server that it happened with, "host:port", or "".
    attr_reader :endpoint
    # For Replicas: how many replicas have the write; else -1.
    attr_reader :count
    # The system's number, or 0.
    attr_reader :errno
    # The server's answer to a call that failed despite it, or nil.
    attr_reader :reply

    # Whether the same call may succeed if it is tried again.
    def retryable? = @flags.to_i & 1 != 0

    # Whether it was sent and not answered.
    def maybe_executed? = @flags.to_i & 2 != 0

    # Whether it happened while the topology was changing.
    def failover? = @flags.to_i & 4 != 0

    # Sets what the library has told; for the package itself.
    def describe(status, name, flags, code, endpoint, count, errno, reply) # :nodoc:
      @status, @name, @flags, @code, @endpoint, @count, @errno, @reply = status, name, flags, code, endpoint, count, errno, reply
      extend(MaybeExecuted) if maybe_executed?
      self
    end
  end

  # The call is wrong, or the handle is.
  class Usage < Error; end
  # The client was closed.
  class Closed < Usage; end
  # The object belongs to the parent process.
  class Forked < Usage; end
  # The call was cancelled; maybe_executed? says whether it had been sent.
  class Cancelled < Usage; end
  # The wire: resolving, connecting, sending, receiving.
  class Connection < Error; end
  # The deadline passed.
  class Timeout < Connection; end
  # The deployment cannot serve the call now.
  class Unavailable < Error; end
  # The pool or the queue has no room.
  class Pool < Error; end
  # The server answered with an error; known codes have a class each below this.
  class Server < Error; end
  # A watched key was changed, or the connection of the WATCH is gone.
  class TxnAborted < Error; end
  # The command needs keys of more than one shard together.
  class CrossShard < Error; end
  # Executed, but fewer replicas have it than asked: count says how many.
  class Replicas < Error; end
  # The cursor belongs to a node that is no longer read.
  class ScanInterrupted < Error; end

  module Errors # :nodoc:
    CODES = {
      'WRONGTYPE' => :WrongType,
      'NOSCRIPT' => :NoScript,
      'NOPERM' => :NoPermission,
      'NOAUTH' => :NoAuth,
      'WRONGPASS' => :WrongPassword,
      'OOM' => :OutOfMemory,
      'READONLY' => :ReadOnly,
      'MISCONF' => :Misconfigured,
      'NOREPLICAS' => :NoReplicas,
      'LOADING' => :Loading,
      'MASTERDOWN' => :MasterDown,
      'BUSY' => :Busy,
      'BUSYGROUP' => :BusyGroup,
      'NOGROUP' => :NoGroup,
      'BUSYKEY' => :BusyKey,
      'EXECABORT' => :ExecAbort,
      'UNBLOCKED' => :Unblocked,
      'NOTBUSY' => :NotBusy,
      'UNKILLABLE' => :Unkillable,
      'INPROG' => :InProgress,
      'NOGOODSLAVE' => :NoGoodReplica,
      'CROSSSLOT' => :CrossSlot,
      'MOVED' => :Moved,
      'ASK' => :Ask,
      'TRYAGAIN' => :TryAgain,
      'CLUSTERDOWN' => :ClusterDown,
      'IOERR' => :IoError,
      'NOPROTO' => :NoProtocol
    }.freeze
    CODES.each_value { |name| Vigie.const_set(name, Class.new(Server)) }

    OF_STATUS = {
      CLOSED: Closed, FORKED: Forked, CANCELLED: Cancelled, TIMEOUT: Timeout, TXN_ABORTED: TxnAborted, CROSS_SHARD: CrossShard,
      REPLICAS: Replicas, SCAN_INTERRUPTED: ScanInterrupted
    }.freeze
    NAMES = Core.statuses.transform_values { |name| name.delete_prefix('VIGIE_ERR_').freeze }.freeze

    module_function

    # The class of a status; one that a newer library has is of the class of its range.
    def class_of(status, code)
      return CODES.key?(code) ? Vigie.const_get(CODES[code]) : Server if status == -400
      OF_STATUS[NAMES[status]&.to_sym] || class_of_range(status)
    end

    def class_of_range(status)
      case status
      when -99..-1 then Usage
      when -199..-100 then Connection
      when -299..-200 then Unavailable
      when -399..-300 then Pool
      when -499..-400 then Server
      else Error
      end
    end

    # Called by the extension for every error.
    def make(status, flags, message, code, endpoint, count, errno, reply)
      class_of(status, code).new(message).describe(status, NAMES[status] || status.to_s, flags, code, endpoint, count, errno, reply)
    end

    # A call was over when it was cancelled: its reply is not lost.
    def late(reply)
      make(-7, 2, 'the call was over when it was cancelled: its reply is in the method reply', '', '', -1, 0, reply)
    end
  end
end
